package wire

// ConfirmSelect turns on publisher confirms (RabbitMQ).
type ConfirmSelect struct {
	NoWait bool
}

// ID is 85, 10.
func (ConfirmSelect) ID() (class, method uint16) { return 85, 10 }

// Name is confirm.select.
func (ConfirmSelect) Name() string { return "confirm.select" }

func (m *ConfirmSelect) decode(d *decoder) {
	d.bits(&m.NoWait)
}

func (m ConfirmSelect) append(dst []byte) []byte {
	return appendBits(dst, m.NoWait)
}

// ConfirmSelectOk answers confirm.select (RabbitMQ).
type ConfirmSelectOk struct{}

// ID is 85, 11.
func (ConfirmSelectOk) ID() (class, method uint16) { return 85, 11 }

// Name is confirm.select-ok.
func (ConfirmSelectOk) Name() string { return "confirm.select-ok" }

func (*ConfirmSelectOk) decode(*decoder) {}

func (ConfirmSelectOk) append(dst []byte) []byte { return dst }
