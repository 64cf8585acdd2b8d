package wire

import "warren/mq"

// ExchangeDeclare creates or verifies an exchange.
type ExchangeDeclare struct {
	Exchange, Type                                 string
	Passive, Durable, AutoDelete, Internal, NoWait bool
	Arguments                                      mq.Table
}

// ID is 40, 10.
func (ExchangeDeclare) ID() (class, method uint16) { return 40, 10 }

// Name is exchange.declare.
func (ExchangeDeclare) Name() string { return "exchange.declare" }

func (m *ExchangeDeclare) decode(d *decoder) {
	d.skip(2) // reserved
	m.Exchange = d.shortstr()
	m.Type = d.shortstr()
	d.bits(&m.Passive, &m.Durable, &m.AutoDelete, &m.Internal, &m.NoWait)
	m.Arguments = d.table()
}

func (m ExchangeDeclare) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Exchange)
	dst = appendShortstr(dst, m.Type)
	dst = appendBits(dst, m.Passive, m.Durable, m.AutoDelete, m.Internal, m.NoWait)
	return AppendTable(dst, m.Arguments)
}

// ExchangeDeclareOk answers exchange.declare.
type ExchangeDeclareOk struct{}

// ID is 40, 11.
func (ExchangeDeclareOk) ID() (class, method uint16) { return 40, 11 }

// Name is exchange.declare-ok.
func (ExchangeDeclareOk) Name() string { return "exchange.declare-ok" }

func (*ExchangeDeclareOk) decode(*decoder) {}

func (ExchangeDeclareOk) append(dst []byte) []byte { return dst }

// ExchangeDelete deletes an exchange.
type ExchangeDelete struct {
	Exchange         string
	IfUnused, NoWait bool
}

// ID is 40, 20.
func (ExchangeDelete) ID() (class, method uint16) { return 40, 20 }

// Name is exchange.delete.
func (ExchangeDelete) Name() string { return "exchange.delete" }

func (m *ExchangeDelete) decode(d *decoder) {
	d.skip(2) // reserved
	m.Exchange = d.shortstr()
	d.bits(&m.IfUnused, &m.NoWait)
}

func (m ExchangeDelete) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Exchange)
	return appendBits(dst, m.IfUnused, m.NoWait)
}

// ExchangeDeleteOk answers exchange.delete.
type ExchangeDeleteOk struct{}

// ID is 40, 21.
func (ExchangeDeleteOk) ID() (class, method uint16) { return 40, 21 }

// Name is exchange.delete-ok.
func (ExchangeDeleteOk) Name() string { return "exchange.delete-ok" }

func (*ExchangeDeleteOk) decode(*decoder) {}

func (ExchangeDeleteOk) append(dst []byte) []byte { return dst }

// ExchangeBind binds one exchange to another (RabbitMQ).
type ExchangeBind struct {
	Destination, Source, RoutingKey string
	NoWait                          bool
	Arguments                       mq.Table
}

// ID is 40, 30.
func (ExchangeBind) ID() (class, method uint16) { return 40, 30 }

// Name is exchange.bind.
func (ExchangeBind) Name() string { return "exchange.bind" }

func (m *ExchangeBind) decode(d *decoder) {
	d.skip(2) // reserved
	m.Destination = d.shortstr()
	m.Source = d.shortstr()
	m.RoutingKey = d.shortstr()
	d.bits(&m.NoWait)
	m.Arguments = d.table()
}

func (m ExchangeBind) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Destination)
	dst = appendShortstr(dst, m.Source)
	dst = appendShortstr(dst, m.RoutingKey)
	dst = appendBits(dst, m.NoWait)
	return AppendTable(dst, m.Arguments)
}

// ExchangeBindOk answers exchange.bind (RabbitMQ).
type ExchangeBindOk struct{}

// ID is 40, 31.
func (ExchangeBindOk) ID() (class, method uint16) { return 40, 31 }

// Name is exchange.bind-ok.
func (ExchangeBindOk) Name() string { return "exchange.bind-ok" }

func (*ExchangeBindOk) decode(*decoder) {}

func (ExchangeBindOk) append(dst []byte) []byte { return dst }

// ExchangeUnbind undoes exchange.bind (RabbitMQ).
type ExchangeUnbind struct {
	Destination, Source, RoutingKey string
	NoWait                          bool
	Arguments                       mq.Table
}

// ID is 40, 40.
func (ExchangeUnbind) ID() (class, method uint16) { return 40, 40 }

// Name is exchange.unbind.
func (ExchangeUnbind) Name() string { return "exchange.unbind" }

func (m *ExchangeUnbind) decode(d *decoder) {
	d.skip(2) // reserved
	m.Destination = d.shortstr()
	m.Source = d.shortstr()
	m.RoutingKey = d.shortstr()
	d.bits(&m.NoWait)
	m.Arguments = d.table()
}

func (m ExchangeUnbind) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Destination)
	dst = appendShortstr(dst, m.Source)
	dst = appendShortstr(dst, m.RoutingKey)
	dst = appendBits(dst, m.NoWait)
	return AppendTable(dst, m.Arguments)
}

// ExchangeUnbindOk answers exchange.unbind (RabbitMQ); its id is 51, not 41.
type ExchangeUnbindOk struct{}

// ID is 40, 51.
func (ExchangeUnbindOk) ID() (class, method uint16) { return 40, 51 }

// Name is exchange.unbind-ok.
func (ExchangeUnbindOk) Name() string { return "exchange.unbind-ok" }

func (*ExchangeUnbindOk) decode(*decoder) {}

func (ExchangeUnbindOk) append(dst []byte) []byte { return dst }
