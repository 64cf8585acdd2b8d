package meta

import (
	"slices"

	"warren/mq"
)

// applied are the policies that count for a queue or an exchange; nil for none.
type applied struct{ policy, operator *Policy }

// Policy is the policy that counts for the queue, nil if none does.
func (q *Queue) Policy() *Policy { return q.applied.policy }

// OperatorPolicy is the operator policy that counts for the queue, nil if
// none does.
func (q *Queue) OperatorPolicy() *Policy { return q.applied.operator }

// Effective are the arguments that the queue works by: those that it was
// declared with, and what its policies add or lower. It costs nothing.
func (q *Queue) Effective() mq.Table {
	if q.applied == (applied{}) {
		return q.Args
	}
	return q.effective
}

func (q *Queue) apply(a applied) {
	q.applied = a
	q.effective = a.over(q.Args, "x-")
}

// Policy is the policy that counts for the exchange, nil if none does.
func (x *Exchange) Policy() *Policy { return x.applied.policy }

// Effective are the arguments that the exchange works by; see Queue.Effective.
func (x *Exchange) Effective() mq.Table {
	if x.applied == (applied{}) {
		return x.Args
	}
	return x.effective
}

func (x *Exchange) apply(a applied) {
	x.applied = a
	x.effective = a.over(x.Args, "")
}

// PolicyArgs are the arguments that a queue of that name would work by if it
// were declared with args.
func (v *View) PolicyArgs(vhost, name string, args mq.Table) mq.Table {
	ps := policies{byPriority(slices.Collect(v.Policies(vhost))), byPriority(slices.Collect(v.OperatorPolicies(vhost)))}
	return ps.forQueue(name, args).over(args, "x-")
}

// over adds the policies to the arguments that something was declared with.
// The key of an argument is prefix and the policy's. Where both say something,
// the lower number counts for limits, and for all else the argument (RabbitMQ,
// "Policies"); only of delayed-retry-type the policy. No argument gets a queue
// past the limits of an operator's policy.
func (a applied) over(args mq.Table, prefix string) mq.Table {
	if a.policy == nil && a.operator == nil {
		return args
	}
	out := slices.Clone(args)
	for _, f := range a.definition() {
		key := prefix + f.Key
		at := slices.IndexFunc(out, func(f mq.Field) bool { return f.Key == key })
		switch {
		case at < 0:
			out = append(out, mq.Field{Key: key, Value: f.Value})
		case f.Key == "delayed-retry-type":
			out[at].Value = f.Value
		case isLimit(f.Key):
			out[at].Value = lower(f.Key, out[at].Value, f.Value)
		}
	}
	return out
}

// definition is what the two policies come to together. Where both have a
// limit, the lower counts, but of delayed-retry-min the higher: an operator
// holds retries back.
func (a applied) definition() mq.Table {
	if a.operator == nil {
		return a.policy.Definition
	}
	if a.policy == nil {
		return a.operator.Definition
	}
	out := slices.Clone(a.policy.Definition)
	for _, f := range a.operator.Definition {
		at := slices.IndexFunc(out, func(old mq.Field) bool { return old.Key == f.Key })
		switch {
		case at < 0:
			out = append(out, f)
		case f.Key == "delayed-retry-min":
			out[at].Value = higher(out[at].Value, f.Value)
		case isLimit(f.Key):
			out[at].Value = lower(f.Key, out[at].Value, f.Value)
		default:
			out[at].Value = f.Value
		}
	}
	return out
}

// isLimit says of which keys the lower number counts.
func isLimit(key string) bool {
	switch key {
	case "message-ttl", "expires", "max-length", "max-length-bytes", "max-in-memory-length", "max-in-memory-bytes",
		"delivery-limit", "consumer-timeout", "delayed-retry-min", "delayed-retry-max":
		return true
	}
	return false
}

// higher is the higher of two numbers; what is no number loses.
func higher(a, b any) any {
	m, isM := mq.Int(a)
	n, isN := mq.Int(b)
	switch {
	case !isM:
		return b
	case !isN:
		return a
	}
	return max(m, n)
}

// lower is the lower of two numbers. A negative delivery limit means that
// there is none, so that the other one is lower. What is no number, which a
// definition from elsewhere may hold, loses against one that is.
func lower(key string, a, b any) any {
	m, isM := mq.Int(a)
	n, isN := mq.Int(b)
	switch {
	case !isM:
		return b
	case !isN:
		return a
	case key == "delivery-limit" && (m < 0 || n < 0):
		return max(m, n)
	}
	return min(m, n)
}
