package meta

import "warren/internal/fields"

// Tracing says that copies of a vhost's messages go to amq.rabbitmq.trace. A
// vhost that has no such record is not traced. It is no field of VHost, whose
// encoding is part of old logs.
type Tracing struct{ VHost string }

func (t *Tracing) appendTo(dst []byte) []byte { return fields.AppendString(dst, t.VHost) }

func (d *decoder) tracing() *Tracing { return &Tracing{VHost: d.Text()} }

func (s *State) tracingSet(op TracingSet) Result {
	if _, ok := s.vhosts.get([]byte(op.VHost)); !ok {
		return refuse(NoVHost(op.VHost))
	}
	_, was := s.tracing.get([]byte(op.VHost))
	switch {
	case op.On && !was:
		s.tracing.put([]byte(op.VHost), &Tracing{op.VHost})
	case !op.On && was:
		s.tracing.delete([]byte(op.VHost))
	}
	if was != op.On {
		s.changed(TracingChanged{})
	}
	return Result{Value: was != op.On}
}
