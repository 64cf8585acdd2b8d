package broker

import (
	"bytes"
	"slices"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/mq"
)

// impersonator is the tag of users who may publish in another's name.
const impersonator = "impersonator"

// The headers whose values are routing keys (RabbitMQ, "Sender-selected
// Distribution"). Nobody gets to see the blind one.
const (
	carbonCopy      = "CC"
	blindCarbonCopy = "BCC"
)

// screen checks what a message says of itself, once it is known that the
// exchange takes it. Messages without headers and user-id cost a look at the
// property flags.
func (s *Session) screen(v *meta.View, p *mq.Publish) (senderKeys, error) {
	if p.Fault != nil {
		return senderKeys{}, p.Fault
	}
	if err := s.broker.fits(p.Content); err != nil {
		return senderKeys{}, err
	}
	properties := p.Content.Properties()
	present := wire.Present(properties)
	if present&(wire.HasHeaders|wire.HasUserID) == 0 {
		return senderKeys{}, nil
	}
	more, err := keysOfSender(properties)
	if err == nil && present&wire.HasUserID != 0 {
		err = s.checkUserID(v, wire.PeekProperty(properties, wire.HasUserID))
	}
	return more, err
}

// checkUserID refuses messages in another's name.
func (s *Session) checkUserID(v *meta.View, claimed []byte) error {
	if string(claimed) == s.user {
		return nil
	}
	if u := v.User(s.user); u != nil && slices.Contains(u.Tags, impersonator) {
		return nil
	}
	return mq.Errorf(mq.PreconditionFailed, "user_id property set to '%s' but authenticated user was '%s'", claimed, s.user)
}

// senderKeys are the routing keys that a message's headers add to its own.
type senderKeys struct {
	keys  [][]byte
	blind bool // there is a BCC header
}

// keysOfSender reads CC and BCC. What is in their arrays and is no string is
// passed over; anything but an array is refused, as in RabbitMQ.
func keysOfSender(properties []byte) (senderKeys, error) {
	headers := wire.PeekProperty(properties, wire.HasHeaders)
	if !bytes.Contains(headers, []byte(carbonCopy)) { // which is in BCC, too
		return senderKeys{}, nil
	}
	t, _, err := wire.ParseTable(headers)
	if err != nil {
		return senderKeys{}, err
	}
	var s senderKeys
	for _, name := range [...]string{carbonCopy, blindCarbonCopy} {
		v, ok := t.Get(name)
		if !ok {
			continue
		}
		list, isArray := v.([]any)
		if !isArray {
			return senderKeys{}, mq.Errorf(mq.PreconditionFailed,
				"invalid message: {unacceptable_type_in_header,%q,%s}", name, meta.TypeName(v))
		}
		s.keys = appendKeys(s.keys, list)
		s.blind = s.blind || name == blindCarbonCopy
	}
	return s, nil
}

func appendKeys(keys [][]byte, list []any) [][]byte {
	for _, k := range list {
		if key, ok := k.(string); ok {
			keys = append(keys, []byte(key))
		}
	}
	return keys
}

// open takes the BCC header off a message: the one case in which a message
// reaches its queues otherwise than it came.
func (s senderKeys) open(c mq.Content) mq.Content {
	if !s.blind {
		return c
	}
	properties := wire.WithoutHeader(c.Properties(), blindCarbonCopy)
	return append(mq.NewContent(string(c.Exchange()), string(c.RoutingKey()), properties, len(c.Body())), c.Body()...)
}
