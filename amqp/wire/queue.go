package wire

import "warren/mq"

// QueueDeclare creates or verifies a queue.
type QueueDeclare struct {
	Queue                                           string
	Passive, Durable, Exclusive, AutoDelete, NoWait bool
	Arguments                                       mq.Table
}

// ID is 50, 10.
func (QueueDeclare) ID() (class, method uint16) { return 50, 10 }

// Name is queue.declare.
func (QueueDeclare) Name() string { return "queue.declare" }

func (m *QueueDeclare) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	d.bits(&m.Passive, &m.Durable, &m.Exclusive, &m.AutoDelete, &m.NoWait)
	m.Arguments = d.table()
}

func (m QueueDeclare) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	dst = appendBits(dst, m.Passive, m.Durable, m.Exclusive, m.AutoDelete, m.NoWait)
	return AppendTable(dst, m.Arguments)
}

// QueueDeclareOk answers queue.declare.
type QueueDeclareOk struct {
	Queue                       string
	MessageCount, ConsumerCount uint32
}

// ID is 50, 11.
func (QueueDeclareOk) ID() (class, method uint16) { return 50, 11 }

// Name is queue.declare-ok.
func (QueueDeclareOk) Name() string { return "queue.declare-ok" }

func (m *QueueDeclareOk) decode(d *decoder) {
	m.Queue = d.shortstr()
	m.MessageCount = d.long()
	m.ConsumerCount = d.long()
}

func (m QueueDeclareOk) append(dst []byte) []byte {
	dst = appendShortstr(dst, m.Queue)
	dst = appendLong(dst, m.MessageCount)
	return appendLong(dst, m.ConsumerCount)
}

// QueueBind binds a queue to an exchange.
type QueueBind struct {
	Queue, Exchange, RoutingKey string
	NoWait                      bool
	Arguments                   mq.Table
}

// ID is 50, 20.
func (QueueBind) ID() (class, method uint16) { return 50, 20 }

// Name is queue.bind.
func (QueueBind) Name() string { return "queue.bind" }

func (m *QueueBind) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	m.Exchange = d.shortstr()
	m.RoutingKey = d.shortstr()
	d.bits(&m.NoWait)
	m.Arguments = d.table()
}

func (m QueueBind) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	dst = appendShortstr(dst, m.Exchange)
	dst = appendShortstr(dst, m.RoutingKey)
	dst = appendBits(dst, m.NoWait)
	return AppendTable(dst, m.Arguments)
}

// QueueBindOk answers queue.bind.
type QueueBindOk struct{}

// ID is 50, 21.
func (QueueBindOk) ID() (class, method uint16) { return 50, 21 }

// Name is queue.bind-ok.
func (QueueBindOk) Name() string { return "queue.bind-ok" }

func (*QueueBindOk) decode(*decoder) {}

func (QueueBindOk) append(dst []byte) []byte { return dst }

// QueuePurge removes the ready messages of a queue.
type QueuePurge struct {
	Queue  string
	NoWait bool
}

// ID is 50, 30.
func (QueuePurge) ID() (class, method uint16) { return 50, 30 }

// Name is queue.purge.
func (QueuePurge) Name() string { return "queue.purge" }

func (m *QueuePurge) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	d.bits(&m.NoWait)
}

func (m QueuePurge) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	return appendBits(dst, m.NoWait)
}

// QueuePurgeOk answers queue.purge.
type QueuePurgeOk struct {
	MessageCount uint32
}

// ID is 50, 31.
func (QueuePurgeOk) ID() (class, method uint16) { return 50, 31 }

// Name is queue.purge-ok.
func (QueuePurgeOk) Name() string { return "queue.purge-ok" }

func (m *QueuePurgeOk) decode(d *decoder) {
	m.MessageCount = d.long()
}

func (m QueuePurgeOk) append(dst []byte) []byte {
	return appendLong(dst, m.MessageCount)
}

// QueueDelete deletes a queue.
type QueueDelete struct {
	Queue                     string
	IfUnused, IfEmpty, NoWait bool
}

// ID is 50, 40.
func (QueueDelete) ID() (class, method uint16) { return 50, 40 }

// Name is queue.delete.
func (QueueDelete) Name() string { return "queue.delete" }

func (m *QueueDelete) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	d.bits(&m.IfUnused, &m.IfEmpty, &m.NoWait)
}

func (m QueueDelete) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	return appendBits(dst, m.IfUnused, m.IfEmpty, m.NoWait)
}

// QueueDeleteOk answers queue.delete.
type QueueDeleteOk struct {
	MessageCount uint32
}

// ID is 50, 41.
func (QueueDeleteOk) ID() (class, method uint16) { return 50, 41 }

// Name is queue.delete-ok.
func (QueueDeleteOk) Name() string { return "queue.delete-ok" }

func (m *QueueDeleteOk) decode(d *decoder) {
	m.MessageCount = d.long()
}

func (m QueueDeleteOk) append(dst []byte) []byte {
	return appendLong(dst, m.MessageCount)
}

// QueueUnbind undoes queue.bind; it has no NoWait.
type QueueUnbind struct {
	Queue, Exchange, RoutingKey string
	Arguments                   mq.Table
}

// ID is 50, 50.
func (QueueUnbind) ID() (class, method uint16) { return 50, 50 }

// Name is queue.unbind.
func (QueueUnbind) Name() string { return "queue.unbind" }

func (m *QueueUnbind) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	m.Exchange = d.shortstr()
	m.RoutingKey = d.shortstr()
	m.Arguments = d.table()
}

func (m QueueUnbind) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	dst = appendShortstr(dst, m.Exchange)
	dst = appendShortstr(dst, m.RoutingKey)
	return AppendTable(dst, m.Arguments)
}

// QueueUnbindOk answers queue.unbind.
type QueueUnbindOk struct{}

// ID is 50, 51.
func (QueueUnbindOk) ID() (class, method uint16) { return 50, 51 }

// Name is queue.unbind-ok.
func (QueueUnbindOk) Name() string { return "queue.unbind-ok" }

func (*QueueUnbindOk) decode(*decoder) {}

func (QueueUnbindOk) append(dst []byte) []byte { return dst }
