package wire

// AccessRequest asks for an access ticket, which AMQP 0-8 had.
type AccessRequest struct {
	Realm                                   string
	Exclusive, Passive, Active, Write, Read bool
}

// ID is 30, 10.
func (AccessRequest) ID() (class, method uint16) { return 30, 10 }

// Name is access.request.
func (AccessRequest) Name() string { return "access.request" }

func (m *AccessRequest) decode(d *decoder) {
	m.Realm = d.shortstr()
	d.bits(&m.Exclusive, &m.Passive, &m.Active, &m.Write, &m.Read)
}

func (m AccessRequest) append(dst []byte) []byte {
	dst = appendShortstr(dst, m.Realm)
	return appendBits(dst, m.Exclusive, m.Passive, m.Active, m.Write, m.Read)
}

// AccessRequestOk answers access.request.
type AccessRequestOk struct {
	Ticket uint16
}

// ID is 30, 11.
func (AccessRequestOk) ID() (class, method uint16) { return 30, 11 }

// Name is access.request-ok.
func (AccessRequestOk) Name() string { return "access.request-ok" }

func (m *AccessRequestOk) decode(d *decoder) {
	m.Ticket = d.short()
}

func (m AccessRequestOk) append(dst []byte) []byte {
	return appendShort(dst, m.Ticket)
}
