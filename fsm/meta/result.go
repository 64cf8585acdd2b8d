package meta

import (
	"errors"
	"fmt"

	"warren/internal/fields"
	"warren/mq"
)

// ErrStale says that an operation was decided in another term and changed
// nothing: whoever proposed it decides again on a newer View.
var ErrStale = errors.New("decided in another term")

// Result is what became of an operation.
type Result struct {
	// Value is nil, a Declared, a mq.SessionID, a uint32 (node number) or a
	// bool (whether there was something to change); see the operations.
	Value any
	// Err refuses the operation, in words for a client.
	Err *mq.Error
	// Stale means that nothing was changed and the operation may be proposed
	// again, unchanged.
	Stale bool
}

// Declared is the Value of a QueueDeclare.
type Declared struct {
	Queue   *Queue
	Created bool // false: it was there, and is equivalent
}

// Error returns ErrStale, the refusal, or nil.
func (r *Result) Error() error {
	switch {
	case r.Stale:
		return ErrStale
	case r.Err != nil:
		return r.Err
	}
	return nil
}

// Results travel from the node that leads to the node that asked:
// u8 kind, then what the kind needs.
const (
	resultNone     = 0
	resultStale    = 1
	resultErr      = 2
	resultDeclared = 3
	resultSession  = 4
	resultNumber   = 5
	resultBool     = 6
)

// AppendResults appends results in a form that ParseResults reads.
func AppendResults(dst []byte, results []Result) []byte {
	dst = fields.AppendUint(dst, uint64(len(results)))
	for i := range results {
		dst = results[i].appendTo(dst)
	}
	return dst
}

func (r *Result) appendTo(dst []byte) []byte {
	if r.Stale {
		return append(dst, resultStale)
	}
	if r.Err != nil {
		dst = fields.AppendUint(append(dst, resultErr), uint64(r.Err.Code))
		dst = appendFlags(dst, r.Err.ChannelOnly)
		return fields.AppendString(dst, r.Err.Text)
	}
	switch v := r.Value.(type) {
	case nil:
		return append(dst, resultNone)
	case Declared:
		return v.Queue.appendTo(appendFlags(append(dst, resultDeclared), v.Created))
	case mq.SessionID:
		return fields.AppendUint(append(dst, resultSession), uint64(v))
	case uint32:
		return fields.AppendUint(append(dst, resultNumber), uint64(v))
	case bool:
		return appendFlags(append(dst, resultBool), v)
	default:
		panic(fmt.Sprintf("meta: a result holds %T", v))
	}
}

// ParseResults reads what AppendResults wrote.
func ParseResults(b []byte) ([]Result, error) {
	d := decoder{fields.Read(b)}
	results := make([]Result, 0, d.Count())
	for range cap(results) {
		results = append(results, d.result())
	}
	if d.Done() != nil {
		return nil, fmt.Errorf("%d bytes of results are malformed", len(b))
	}
	return results, nil
}

func (d *decoder) result() Result {
	switch d.Byte() {
	case resultNone:
		return Result{}
	case resultStale:
		return Result{Stale: true}
	case resultErr:
		e := &mq.Error{Code: mq.Code(d.Uint())}
		d.flags(&e.ChannelOnly)
		e.Text = d.Text()
		return Result{Err: e}
	case resultDeclared:
		var v Declared
		d.flags(&v.Created)
		v.Queue = d.queue()
		return Result{Value: v}
	case resultSession:
		return Result{Value: d.sessionID()}
	case resultNumber:
		return Result{Value: uint32(d.Uint())}
	case resultBool:
		var v bool
		d.flags(&v)
		return Result{Value: v}
	}
	d.Fail()
	return Result{}
}
