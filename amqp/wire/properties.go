package wire

import (
	"time"

	"warren/mq"
)

// Property flags, from the highest bit down in the order of the property list
// (AMQP 0-9-1 §4.2.6.1). Bit 0 would announce more flags; class basic has none.
const (
	HasContentType uint16 = 1 << (15 - iota)
	HasContentEncoding
	HasHeaders
	HasDeliveryMode
	HasPriority
	HasCorrelationID
	HasReplyTo
	HasExpiration
	HasMessageID
	HasTimestamp
	HasType
	HasUserID
	HasAppID
	hasClusterID        // reserved since 0-9-1; taken and kept, not shown
	hasUnknown   uint16 = 0x3
)

// Properties are the properties of a message of class basic. Present says
// which of them are there.
type Properties struct {
	Present uint16

	ContentType, ContentEncoding         string
	Headers                              mq.Table
	DeliveryMode, Priority               uint8
	CorrelationID, ReplyTo, Expiration   string
	MessageID                            string
	Timestamp                            time.Time // whole seconds
	Type, UserID, AppID, reservedCluster string
}

// Has reports whether all the given properties are present.
func (p *Properties) Has(flags uint16) bool { return p.Present&flags == flags }

// ParseProperties decodes property flags and list, all of b.
func ParseProperties(b []byte) (Properties, error) {
	var p Properties
	d := decoder{b: b}
	p.Present = d.short()
	d.checkFlags(p.Present)
	shortstr := func(flag uint16, s *string) {
		if p.Present&flag != 0 {
			*s = string(d.shortBytes())
		}
	}
	octet := func(flag uint16, v *uint8) {
		if p.Present&flag != 0 {
			*v = d.octet()
		}
	}
	shortstr(HasContentType, &p.ContentType)
	shortstr(HasContentEncoding, &p.ContentEncoding)
	if p.Present&HasHeaders != 0 {
		p.Headers = d.table()
	}
	octet(HasDeliveryMode, &p.DeliveryMode)
	octet(HasPriority, &p.Priority)
	shortstr(HasCorrelationID, &p.CorrelationID)
	shortstr(HasReplyTo, &p.ReplyTo)
	shortstr(HasExpiration, &p.Expiration)
	shortstr(HasMessageID, &p.MessageID)
	if p.Present&HasTimestamp != 0 {
		p.Timestamp = time.Unix(int64(d.longlong()), 0).UTC()
	}
	shortstr(HasType, &p.Type)
	shortstr(HasUserID, &p.UserID)
	shortstr(HasAppID, &p.AppID)
	shortstr(hasClusterID, &p.reservedCluster)
	if err := d.finish("content properties"); err != nil {
		return Properties{}, err
	}
	return p, nil
}

// AppendProperties appends property flags and list: what Present says, in the
// order of the flags.
func AppendProperties(dst []byte, p Properties) []byte {
	present := p.Present &^ hasUnknown
	dst = appendShort(dst, present)
	shortstr := func(flag uint16, s string) {
		if present&flag != 0 {
			dst = appendShortstr(dst, s)
		}
	}
	octet := func(flag uint16, v uint8) {
		if present&flag != 0 {
			dst = append(dst, v)
		}
	}
	shortstr(HasContentType, p.ContentType)
	shortstr(HasContentEncoding, p.ContentEncoding)
	if present&HasHeaders != 0 {
		dst = AppendTable(dst, p.Headers)
	}
	octet(HasDeliveryMode, p.DeliveryMode)
	octet(HasPriority, p.Priority)
	shortstr(HasCorrelationID, p.CorrelationID)
	shortstr(HasReplyTo, p.ReplyTo)
	shortstr(HasExpiration, p.Expiration)
	shortstr(HasMessageID, p.MessageID)
	if present&HasTimestamp != 0 {
		dst = appendLonglong(dst, uint64(p.Timestamp.Unix()))
	}
	shortstr(HasType, p.Type)
	shortstr(HasUserID, p.UserID)
	shortstr(HasAppID, p.AppID)
	shortstr(hasClusterID, p.reservedCluster)
	return dst
}

// PeekProperties picks what the broker itself reads out of property flags and
// list, and checks the rest. It allocates nothing: the slices are of b, and
// nil for what is not there. headers is a field table with its length, as
// ParseTable takes it; its length is checked, its entries are not.
func PeekProperties(b []byte) (deliveryMode, priority uint8, expiration, headers, userID []byte, err error) {
	d := decoder{b: b}
	present := d.short()
	d.checkFlags(present)
	for flag := HasContentType; flag >= hasClusterID; flag >>= 1 {
		if present&flag == 0 {
			continue
		}
		switch flag {
		case HasHeaders:
			at := d.b
			n := len(d.longBytes())
			headers = at[:min(4+n, len(at))]
		case HasDeliveryMode:
			deliveryMode = d.octet()
		case HasPriority:
			priority = d.octet()
		case HasExpiration:
			expiration = d.shortBytes()
		case HasTimestamp:
			d.skip(8)
		case HasUserID:
			userID = d.shortBytes()
		default:
			d.shortBytes()
		}
	}
	if err := d.finish("content properties"); err != nil {
		return 0, 0, nil, nil, nil, err
	}
	return deliveryMode, priority, expiration, headers, userID, nil
}

// checkFlags refuses flags that class basic does not have: without knowing
// the property there is no knowing where the next one begins.
func (d *decoder) checkFlags(present uint16) {
	if present&hasUnknown != 0 {
		d.fail("unknown property flags")
	}
}
