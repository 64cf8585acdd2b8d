package wire

import "warren/mq"

// BasicQos limits what consumers may hold unsettled.
type BasicQos struct {
	PrefetchSize  uint32
	PrefetchCount uint16
	Global        bool
}

// ID is 60, 10.
func (BasicQos) ID() (class, method uint16) { return 60, 10 }

// Name is basic.qos.
func (BasicQos) Name() string { return "basic.qos" }

func (m *BasicQos) decode(d *decoder) {
	m.PrefetchSize = d.long()
	m.PrefetchCount = d.short()
	d.bits(&m.Global)
}

func (m BasicQos) append(dst []byte) []byte {
	dst = appendLong(dst, m.PrefetchSize)
	dst = appendShort(dst, m.PrefetchCount)
	return appendBits(dst, m.Global)
}

// BasicQosOk answers basic.qos.
type BasicQosOk struct{}

// ID is 60, 11.
func (BasicQosOk) ID() (class, method uint16) { return 60, 11 }

// Name is basic.qos-ok.
func (BasicQosOk) Name() string { return "basic.qos-ok" }

func (*BasicQosOk) decode(*decoder) {}

func (BasicQosOk) append(dst []byte) []byte { return dst }

// BasicConsume starts a consumer.
type BasicConsume struct {
	Queue, ConsumerTag                string
	NoLocal, NoAck, Exclusive, NoWait bool
	Arguments                         mq.Table
}

// ID is 60, 20.
func (BasicConsume) ID() (class, method uint16) { return 60, 20 }

// Name is basic.consume.
func (BasicConsume) Name() string { return "basic.consume" }

func (m *BasicConsume) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	m.ConsumerTag = d.shortstr()
	d.bits(&m.NoLocal, &m.NoAck, &m.Exclusive, &m.NoWait)
	m.Arguments = d.table()
}

func (m BasicConsume) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	dst = appendShortstr(dst, m.ConsumerTag)
	dst = appendBits(dst, m.NoLocal, m.NoAck, m.Exclusive, m.NoWait)
	return AppendTable(dst, m.Arguments)
}

// BasicConsumeOk answers basic.consume.
type BasicConsumeOk struct {
	ConsumerTag string
}

// ID is 60, 21.
func (BasicConsumeOk) ID() (class, method uint16) { return 60, 21 }

// Name is basic.consume-ok.
func (BasicConsumeOk) Name() string { return "basic.consume-ok" }

func (m *BasicConsumeOk) decode(d *decoder) {
	m.ConsumerTag = d.shortstr()
}

func (m BasicConsumeOk) append(dst []byte) []byte {
	return appendShortstr(dst, m.ConsumerTag)
}

// BasicCancel ends a consumer; RabbitMQ sends it to clients too.
type BasicCancel struct {
	ConsumerTag string
	NoWait      bool
}

// ID is 60, 30.
func (BasicCancel) ID() (class, method uint16) { return 60, 30 }

// Name is basic.cancel.
func (BasicCancel) Name() string { return "basic.cancel" }

func (m *BasicCancel) decode(d *decoder) {
	m.ConsumerTag = d.shortstr()
	d.bits(&m.NoWait)
}

func (m BasicCancel) append(dst []byte) []byte {
	dst = appendShortstr(dst, m.ConsumerTag)
	return appendBits(dst, m.NoWait)
}

// BasicCancelOk answers basic.cancel.
type BasicCancelOk struct {
	ConsumerTag string
}

// ID is 60, 31.
func (BasicCancelOk) ID() (class, method uint16) { return 60, 31 }

// Name is basic.cancel-ok.
func (BasicCancelOk) Name() string { return "basic.cancel-ok" }

func (m *BasicCancelOk) decode(d *decoder) {
	m.ConsumerTag = d.shortstr()
}

func (m BasicCancelOk) append(dst []byte) []byte {
	return appendShortstr(dst, m.ConsumerTag)
}

// BasicPublish announces a message; its content follows. The names are slices
// of the payload that it was parsed from, as in all methods with content.
type BasicPublish struct {
	Exchange, RoutingKey []byte
	Mandatory, Immediate bool
}

// ID is 60, 40.
func (BasicPublish) ID() (class, method uint16) { return 60, 40 }

// Name is basic.publish.
func (BasicPublish) Name() string { return "basic.publish" }

func (m *BasicPublish) decode(d *decoder) {
	d.skip(2) // reserved
	m.Exchange = d.shortBytes()
	m.RoutingKey = d.shortBytes()
	d.bits(&m.Mandatory, &m.Immediate)
}

func (m BasicPublish) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortBytes(dst, m.Exchange)
	dst = appendShortBytes(dst, m.RoutingKey)
	return appendBits(dst, m.Mandatory, m.Immediate)
}

// BasicReturn gives back an unroutable message; its content follows.
type BasicReturn struct {
	ReplyCode            mq.Code
	ReplyText            string
	Exchange, RoutingKey []byte
}

// ID is 60, 50.
func (BasicReturn) ID() (class, method uint16) { return 60, 50 }

// Name is basic.return.
func (BasicReturn) Name() string { return "basic.return" }

func (m *BasicReturn) decode(d *decoder) {
	m.ReplyCode = mq.Code(d.short())
	m.ReplyText = d.shortstr()
	m.Exchange = d.shortBytes()
	m.RoutingKey = d.shortBytes()
}

func (m BasicReturn) append(dst []byte) []byte {
	dst = appendShort(dst, uint16(m.ReplyCode))
	dst = appendShortstr(dst, m.ReplyText)
	dst = appendShortBytes(dst, m.Exchange)
	return appendShortBytes(dst, m.RoutingKey)
}

// BasicDeliver brings a message to a consumer; its content follows.
type BasicDeliver struct {
	ConsumerTag          string
	DeliveryTag          uint64
	Redelivered          bool
	Exchange, RoutingKey []byte
}

// ID is 60, 60.
func (BasicDeliver) ID() (class, method uint16) { return 60, 60 }

// Name is basic.deliver.
func (BasicDeliver) Name() string { return "basic.deliver" }

func (m *BasicDeliver) decode(d *decoder) {
	m.ConsumerTag = d.shortstr()
	m.DeliveryTag = d.longlong()
	d.bits(&m.Redelivered)
	m.Exchange = d.shortBytes()
	m.RoutingKey = d.shortBytes()
}

func (m BasicDeliver) append(dst []byte) []byte {
	dst = appendShortstr(dst, m.ConsumerTag)
	dst = appendLonglong(dst, m.DeliveryTag)
	dst = appendBits(dst, m.Redelivered)
	dst = appendShortBytes(dst, m.Exchange)
	return appendShortBytes(dst, m.RoutingKey)
}

// BasicGet asks for one message.
type BasicGet struct {
	Queue string
	NoAck bool
}

// ID is 60, 70.
func (BasicGet) ID() (class, method uint16) { return 60, 70 }

// Name is basic.get.
func (BasicGet) Name() string { return "basic.get" }

func (m *BasicGet) decode(d *decoder) {
	d.skip(2) // reserved
	m.Queue = d.shortstr()
	d.bits(&m.NoAck)
}

func (m BasicGet) append(dst []byte) []byte {
	dst = append(dst, 0, 0) // reserved
	dst = appendShortstr(dst, m.Queue)
	return appendBits(dst, m.NoAck)
}

// BasicGetOk answers basic.get; its content follows.
type BasicGetOk struct {
	DeliveryTag          uint64
	Redelivered          bool
	Exchange, RoutingKey []byte
	MessageCount         uint32
}

// ID is 60, 71.
func (BasicGetOk) ID() (class, method uint16) { return 60, 71 }

// Name is basic.get-ok.
func (BasicGetOk) Name() string { return "basic.get-ok" }

func (m *BasicGetOk) decode(d *decoder) {
	m.DeliveryTag = d.longlong()
	d.bits(&m.Redelivered)
	m.Exchange = d.shortBytes()
	m.RoutingKey = d.shortBytes()
	m.MessageCount = d.long()
}

func (m BasicGetOk) append(dst []byte) []byte {
	dst = appendLonglong(dst, m.DeliveryTag)
	dst = appendBits(dst, m.Redelivered)
	dst = appendShortBytes(dst, m.Exchange)
	dst = appendShortBytes(dst, m.RoutingKey)
	return appendLong(dst, m.MessageCount)
}

// BasicGetEmpty answers basic.get when there is nothing.
type BasicGetEmpty struct{}

// ID is 60, 72.
func (BasicGetEmpty) ID() (class, method uint16) { return 60, 72 }

// Name is basic.get-empty.
func (BasicGetEmpty) Name() string { return "basic.get-empty" }

func (*BasicGetEmpty) decode(d *decoder) {
	d.shortBytes() // reserved
}

func (BasicGetEmpty) append(dst []byte) []byte {
	return append(dst, 0) // reserved
}

// BasicAck acknowledges deliveries, or confirms publishes.
type BasicAck struct {
	DeliveryTag uint64
	Multiple    bool
}

// ID is 60, 80.
func (BasicAck) ID() (class, method uint16) { return 60, 80 }

// Name is basic.ack.
func (BasicAck) Name() string { return "basic.ack" }

func (m *BasicAck) decode(d *decoder) {
	m.DeliveryTag = d.longlong()
	d.bits(&m.Multiple)
}

func (m BasicAck) append(dst []byte) []byte {
	dst = appendLonglong(dst, m.DeliveryTag)
	return appendBits(dst, m.Multiple)
}

// BasicReject refuses one delivery.
type BasicReject struct {
	DeliveryTag uint64
	Requeue     bool
}

// ID is 60, 90.
func (BasicReject) ID() (class, method uint16) { return 60, 90 }

// Name is basic.reject.
func (BasicReject) Name() string { return "basic.reject" }

func (m *BasicReject) decode(d *decoder) {
	m.DeliveryTag = d.longlong()
	d.bits(&m.Requeue)
}

func (m BasicReject) append(dst []byte) []byte {
	dst = appendLonglong(dst, m.DeliveryTag)
	return appendBits(dst, m.Requeue)
}

// BasicRecoverAsync is basic.recover without an answer (deprecated).
type BasicRecoverAsync struct {
	Requeue bool
}

// ID is 60, 100.
func (BasicRecoverAsync) ID() (class, method uint16) { return 60, 100 }

// Name is basic.recover-async.
func (BasicRecoverAsync) Name() string { return "basic.recover-async" }

func (m *BasicRecoverAsync) decode(d *decoder) {
	d.bits(&m.Requeue)
}

func (m BasicRecoverAsync) append(dst []byte) []byte {
	return appendBits(dst, m.Requeue)
}

// BasicRecover asks for the unsettled deliveries again.
type BasicRecover struct {
	Requeue bool
}

// ID is 60, 110.
func (BasicRecover) ID() (class, method uint16) { return 60, 110 }

// Name is basic.recover.
func (BasicRecover) Name() string { return "basic.recover" }

func (m *BasicRecover) decode(d *decoder) {
	d.bits(&m.Requeue)
}

func (m BasicRecover) append(dst []byte) []byte {
	return appendBits(dst, m.Requeue)
}

// BasicRecoverOk answers basic.recover.
type BasicRecoverOk struct{}

// ID is 60, 111.
func (BasicRecoverOk) ID() (class, method uint16) { return 60, 111 }

// Name is basic.recover-ok.
func (BasicRecoverOk) Name() string { return "basic.recover-ok" }

func (*BasicRecoverOk) decode(*decoder) {}

func (BasicRecoverOk) append(dst []byte) []byte { return dst }

// BasicNack refuses deliveries, or says that publishes were not kept (RabbitMQ).
type BasicNack struct {
	DeliveryTag       uint64
	Multiple, Requeue bool
}

// ID is 60, 120.
func (BasicNack) ID() (class, method uint16) { return 60, 120 }

// Name is basic.nack.
func (BasicNack) Name() string { return "basic.nack" }

func (m *BasicNack) decode(d *decoder) {
	m.DeliveryTag = d.longlong()
	d.bits(&m.Multiple, &m.Requeue)
}

func (m BasicNack) append(dst []byte) []byte {
	dst = appendLonglong(dst, m.DeliveryTag)
	return appendBits(dst, m.Multiple, m.Requeue)
}
