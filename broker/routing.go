package broker

import (
	"slices"
	"sync"

	"warren/broker/route"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// routers keeps compiled exchanges. An exchange is compiled at the first
// publish after its bindings changed, and then only read.
type routers struct {
	mu       sync.RWMutex
	compiled map[exchangeName]*router
}

type exchangeName struct{ vhost, name string }

// router is one exchange, compiled.
type router struct {
	version uint64 // of the exchange's record
	match   route.Matcher
	byKey   bool // the routing key alone decides
	dests   []*meta.Binding
}

// routersMax is how many compiled exchanges are kept; beyond it all are
// dropped and compiled again when needed.
const routersMax = 10000

func newRouters() *routers { return &routers{compiled: map[exchangeName]*router{}} }

func (r *routers) of(v *meta.View, x *meta.Exchange) (*router, error) {
	key := exchangeName{x.VHost, x.Name}
	r.mu.RLock()
	c := r.compiled[key]
	r.mu.RUnlock()
	if c != nil && c.version == x.Version {
		return c, nil
	}
	c = &router{version: x.Version, byKey: route.ByKey(routedAs(x), x.Args)}
	var bindings []route.Binding
	for b := range v.BindingsFrom(x.VHost, x.Name) {
		bindings = append(bindings, route.Binding{Key: b.Key, Args: b.Args, Dest: len(c.dests), To: destinationName(b)})
		c.dests = append(c.dests, b)
	}
	var err error
	if c.match, err = route.Compile(routedAs(x), x.Args, bindings); err != nil {
		return nil, err
	}
	r.mu.Lock()
	if len(r.compiled) >= routersMax {
		clear(r.compiled)
	}
	r.compiled[key] = c
	r.mu.Unlock()
	return c, nil
}

// destinationName tells the destinations of an exchange apart. It is hashed:
// it must stay as it is.
func destinationName(b *meta.Binding) string {
	if b.ToExchange {
		return "exchange " + b.Destination
	}
	return "queue " + b.Destination
}

// target is the part of a message's destinations that lies in one group and
// has one time to live.
type target struct {
	group  mq.GroupID
	ttlMs  int64 // x-message-ttl of the queues; negative means none
	keepMs int64 // how long an exchange keeps the message in them; notKept for clients' queues
	flags  uint8 // of the message on its way there: refusable if one of the queues may be full
	queues []mq.QueueID
	// windows are the memories of queues and of exchanges on the way that decide
	// whether the message enters; none for most.
	windows []queue.Window
}

// walk finds the queues that a message reaches from an exchange: through
// bindings between exchanges (each exchange once, so cycles end), and where an
// exchange routes it nowhere, through its alternate exchange. To the exchanges
// it is the message (route.Message).
type walk struct {
	broker  *Broker
	view    *meta.View
	vhost   string
	keys    [][]byte // the routing key, and others that count as well
	content mq.Content
	avoid   func(queue string) bool // queues that are not reached though bound; nil for none
	byKey   bool                    // exchange and routing keys alone decide: the result may be kept

	at           *router        // the exchange that is asked for destinations
	windows      []queue.Window // of exchanges on the way to where the walk is
	died         bool           // the message is a dead letter
	seenExchange map[string]bool
	seenQueue    map[mq.QueueID]bool
	targets      []target
}

func newWalk(b *Broker, v *meta.View, vhost string, c mq.Content, keys [][]byte) *walk {
	return &walk{
		broker: b, view: v, vhost: vhost, keys: keys, content: c, byKey: true,
		seenExchange: map[string]bool{}, seenQueue: map[mq.QueueID]bool{},
	}
}

func (w *walk) from(x *meta.Exchange) error {
	if w.seenExchange[x.Name] {
		return nil
	}
	w.seenExchange[x.Name] = true
	if x.Name == "" {
		for _, key := range w.keys {
			if q := w.view.Queue(w.vhost, string(key)); q != nil {
				w.reach(q)
			}
		}
		return nil
	}
	before := w.windows
	if w.keep(x) {
		return nil
	}
	err := w.through(x)
	w.windows = before
	return err
}

// through follows the bindings of an exchange that match.
func (w *walk) through(x *meta.Exchange) error {
	r, err := w.broker.routers.of(w.view, x)
	if err != nil {
		return err
	}
	w.byKey = w.byKey && r.byKey
	w.at = r
	hit := false
	r.match.Match(w, func(dest int) {
		hit = true
		if e := w.follow(r.dests[dest]); e != nil {
			err = e
		}
	})
	if err == nil && !hit {
		err = w.alternate(x)
	}
	return err
}

func (w *walk) follow(b *meta.Binding) error {
	if b.ToExchange {
		if x := w.view.Exchange(w.vhost, b.Destination); x != nil {
			return w.from(x)
		}
		return nil
	}
	if q := w.view.Queue(w.vhost, b.Destination); q != nil {
		w.reach(q)
	}
	return nil
}

// alternate goes on with the alternate exchange (RabbitMQ, "Alternate
// Exchanges"); one that does not exist is as good as none.
func (w *walk) alternate(x *meta.Exchange) error {
	name, ok := x.Effective().String("alternate-exchange")
	if !ok {
		return nil
	}
	if ae := w.view.Exchange(w.vhost, name); ae != nil {
		return w.from(ae)
	}
	return nil
}

func (w *walk) reach(q *meta.Queue) {
	if w.seenQueue[q.ID] || w.avoid != nil && w.avoid(q.Name) {
		return
	}
	w.seenQueue[q.ID] = true
	ttlMs, flags, windows := queueTTL(q), uint8(0), w.windowsOf(q)
	if refuse, _ := refuses(q); refuse {
		flags = refusable
	}
	for i := range w.targets {
		if t := &w.targets[i]; t.group == q.Group && t.ttlMs == ttlMs && t.keepMs == notKept && slices.Equal(t.windows, windows) {
			t.queues = append(t.queues, q.ID)
			t.flags |= flags
			return
		}
	}
	w.targets = append(w.targets, target{group: q.Group, ttlMs: ttlMs, flags: flags, queues: []mq.QueueID{q.ID}, windows: windows})
}
