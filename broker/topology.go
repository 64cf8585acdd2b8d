package broker

import (
	"context"
	"fmt"

	"warren/fsm/meta"
	"warren/mq"
)

// Catalog is the replicated metadata as a session needs it. Any number of
// goroutines may use it.
type Catalog interface {
	// View is the newest state that this node has applied.
	View() *meta.View
	// Propose commits operations and returns when every live node has applied
	// them. It blocks until then.
	Propose(ctx context.Context, ops ...meta.Op) ([]meta.Result, error)
	// ReadIndex blocks until View is at least as new as every change that was
	// acknowledged before the call.
	ReadIndex(ctx context.Context) error
}

// Queues asks the leaders of queues. Its methods block until the leader has
// answered; any number of goroutines may use it.
type Queues interface {
	Stat(ctx context.Context, q *meta.Queue) (QueueStat, error)
	// Declared is Stat for somebody who declares q again, which counts as its use.
	Declared(ctx context.Context, q *meta.Queue) (QueueStat, error)
	// DeleteIf deletes q if nobody consumes from it, or nothing is ready in it, or
	// both, and returns how many messages went with it.
	DeleteIf(ctx context.Context, q *meta.Queue, unused, empty bool) (uint64, error)
	// Purge drops what is ready and returns how many messages that were.
	Purge(ctx context.Context, q *meta.Queue) (uint32, error)
}

// Placement picks the Raft group in which a new durable queue will live. It
// must not block.
type Placement interface {
	GroupFor(vhost, name string, args mq.Table) mq.GroupID
}

// Identity is who a session acts for.
type Identity struct {
	User, VHost string
	// Session is this node's current session: what is exclusive or transient
	// lives in its memory.
	Session func() mq.SessionID
	// Conn tells the connections of this node's session apart.
	Conn uint64
}

// Topology carries out topology changes for one client connection, and knows
// which queues and exchanges the client may use. Any number of goroutines may
// use it.
type Topology struct {
	meta   Catalog
	queues Queues
	place  Placement
	who    Identity
	access *Access
	// replay, if set, gives what an exchange has kept to a new binding of it.
	replay func(ctx context.Context, x *meta.Exchange, to meta.Binding) error
}

// NewTopology returns the Topology of one connection.
func NewTopology(m Catalog, q Queues, p Placement, who Identity) *Topology {
	return &Topology{meta: m, queues: q, place: p, who: who, access: NewAccess(m, who.User, who.VHost)}
}

// Access tells what the connection's user may do.
func (t *Topology) Access() *Access { return t.access }

// AllowPublish refuses a publish to an exchange that the user may not write
// to, as of a View. It is called for messages whose route is not cached.
func (t *Topology) AllowPublish(v *meta.View, exchange string) error {
	return t.access.AllowPublish(v, exchange)
}

// Readable finds a queue that the client may consume and get from: 403 if it
// may not read, 404 if there is none, 405 if it is exclusive to another
// connection.
func (t *Topology) Readable(ctx context.Context, name string) (*meta.Queue, error) {
	if err := t.access.Read(queueResource, name); err != nil {
		return nil, err
	}
	return t.Queue(ctx, name)
}

// Change carries op out. When it returns without an error, every live node
// has applied the change.
func (t *Topology) Change(ctx context.Context, op mq.Op) (mq.Reply, error) {
	switch op := op.(type) {
	case mq.ExchangeDeclare:
		return mq.Reply{}, t.exchangeDeclare(ctx, op)
	case mq.ExchangeDelete:
		return mq.Reply{}, t.exchangeDelete(ctx, op)
	case mq.ExchangeBind:
		return mq.Reply{}, t.bind(ctx, t.binding(op.Source, op.Destination, true, op.RoutingKey, op.Args))
	case mq.ExchangeUnbind:
		return mq.Reply{}, t.unbind(ctx, t.binding(op.Source, op.Destination, true, op.RoutingKey, op.Args))
	case mq.QueueDeclare:
		return t.queueDeclare(ctx, op)
	case mq.QueueDelete:
		return t.queueDelete(ctx, op)
	case mq.QueuePurge:
		return t.queuePurge(ctx, op)
	case mq.QueueBind:
		return mq.Reply{}, t.bind(ctx, t.binding(op.Exchange, op.Queue, false, op.RoutingKey, op.Args))
	case mq.QueueUnbind:
		return mq.Reply{}, t.unbind(ctx, t.binding(op.Exchange, op.Queue, false, op.RoutingKey, op.Args))
	}
	return mq.Reply{}, fmt.Errorf("no rule for %T", op)
}

// Queue finds a queue that the client may use: 404 if there is none, 405 if
// it is exclusive to another connection. Permissions are another question.
func (t *Topology) Queue(ctx context.Context, name string) (*meta.Queue, error) {
	q, err := t.anyQueue(ctx, name)
	if err == nil && !t.mayUse(q) {
		return nil, q.Locked()
	}
	return q, err
}

// anyQueue finds a queue, whosever it is: 404 if there is none.
func (t *Topology) anyQueue(ctx context.Context, name string) (*meta.Queue, error) {
	q, err := confirmed(ctx, t.meta, func(v *meta.View) *meta.Queue { return v.Queue(t.who.VHost, name) })
	if err == nil && q == nil {
		err = meta.NoQueue(t.who.VHost, name)
	}
	return q, err
}

// Exchange finds an exchange: 404 if there is none.
func (t *Topology) Exchange(ctx context.Context, name string) (*meta.Exchange, error) {
	x, err := t.exchange(ctx, name)
	if err == nil && x == nil {
		err = meta.NoExchange(t.who.VHost, name)
	}
	return x, err
}

// exchange is like Exchange but returns nil, nil if there is none.
func (t *Topology) exchange(ctx context.Context, name string) (*meta.Exchange, error) {
	return confirmed(ctx, t.meta, func(v *meta.View) *meta.Exchange { return v.Exchange(t.who.VHost, name) })
}

// mayUse reports whether q is not another connection's exclusive queue.
func (t *Topology) mayUse(q *meta.Queue) bool {
	return !q.Exclusive || q.Owner == t.who.Session() && q.OwnerConn == t.who.Conn
}

// confirmed looks something up in the newest View; if it is not there, once
// more in one that is certainly new enough, so that nobody is told "not found"
// of what another node has acknowledged.
func confirmed[T any](ctx context.Context, m Catalog, look func(*meta.View) *T) (*T, error) {
	if found := look(m.View()); found != nil {
		return found, nil
	}
	if err := m.ReadIndex(ctx); err != nil {
		return nil, fmt.Errorf("confirm with the metadata leader: %w", err)
	}
	return look(m.View()), nil
}

// agreed checks a declaration against what is there. A difference counts only
// if it is still there in a View that is certainly new enough: a client may
// have just deleted the old one through another node. It returns nil, nil if
// nothing is there as far as this node knows; what is proposed then is checked
// once more when it is applied.
func agreed[T any](ctx context.Context, m Catalog, look func(*meta.View) *T, check func(*T) *mq.Error) (*T, error) {
	found := look(m.View())
	if found == nil || check(found) == nil {
		return found, nil
	}
	if err := m.ReadIndex(ctx); err != nil {
		return nil, fmt.Errorf("confirm with the metadata leader: %w", err)
	}
	if found = look(m.View()); found == nil {
		return nil, nil
	}
	if err := check(found); err != nil {
		return nil, err
	}
	return found, nil
}

// staleTriesMax is how often a change is proposed that was decided in a term
// that had just ended; more than a few in a row means that leaders come and go.
const staleTriesMax = 16

func (t *Topology) propose(ctx context.Context, op meta.Op) (meta.Result, error) {
	return propose(ctx, t.meta, op)
}

// propose commits one operation.
func propose(ctx context.Context, m Catalog, op meta.Op) (meta.Result, error) {
	for range staleTriesMax {
		results, err := m.Propose(ctx, op)
		if err != nil {
			return meta.Result{}, fmt.Errorf("propose: %w", err)
		}
		if r := results[0]; !r.Stale {
			if r.Err != nil {
				return meta.Result{}, r.Err
			}
			return r, nil
		}
	}
	return meta.Result{}, &mq.Error{
		Code: mq.InternalError, ChannelOnly: true,
		Text: "the leader of the metadata changes too often",
	}
}
