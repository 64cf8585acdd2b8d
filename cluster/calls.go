package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Kinds of calls below KindNode are the cluster's own.
const (
	kindPrepare uint8 = 1 + iota
	kindCommit
	kindStatus
	kindJoin
	kindBook
	kindReplica
)

// KindNode is the first kind that OnCall takes.
const KindNode uint8 = 16

const (
	// callWorkersMax bounds the calls that this node works on at a time.
	callWorkersMax = 256
	// callTimeoutMax is the longest that a call may be worked on.
	callTimeoutMax = 60 * time.Second
)

var errNoCall = errors.New("the node does not know this kind of call")

// CallHandler answers a small request of another node. ctx ends when this node
// stops, or after a minute.
type CallHandler func(ctx context.Context, from string, req []byte) ([]byte, error)

// callTable are the kinds that this node answers. Set before networking begins.
type callTable struct {
	kinds   [256]CallHandler
	workers chan struct{}
	work    sync.WaitGroup
}

func newCallTable() *callTable {
	return &callTable{workers: make(chan struct{}, callWorkersMax)}
}

// handle starts the answer to q; it does not wait for it.
func (t *callTable) handle(ctx context.Context, q request) {
	if q.head.typ != typeCall || q.head.group > 255 || t.kinds[q.head.group] == nil {
		q.answer(nil, fmt.Errorf("%w: %d", errNoCall, q.head.group))
		return
	}
	select {
	case t.workers <- struct{}{}:
	default:
		q.answer(nil, errBusy)
		return
	}
	t.work.Go(func() {
		defer func() { <-t.workers }()
		ctx, cancel := context.WithTimeout(ctx, callTimeoutMax)
		defer cancel()
		q.answer(t.kinds[q.head.group](ctx, q.from, q.body))
	})
}

// Call asks another node, and waits for its answer. An error that the other
// node's handler returned comes back with the same text.
func (c *Cluster) Call(ctx context.Context, id string, kind uint8, req []byte) ([]byte, error) {
	if id == c.id {
		h := c.calls.kinds[kind]
		if h == nil {
			return nil, fmt.Errorf("%w: %d", errNoCall, kind)
		}
		return h(ctx, id, req)
	}
	if len(req) > callBytesMax {
		return nil, fmt.Errorf("%w: a call of %d bytes", errFrameTooLong, len(req))
	}
	return c.callers.call(ctx, id, roleCall, rpcHead{typ: typeCall, group: uint64(kind)}, req, nil)
}

// OnCall sets who answers calls of a kind, from KindNode on. Before Start.
func (c *Cluster) OnCall(kind uint8, h CallHandler) {
	if kind < KindNode {
		panic(fmt.Sprintf("cluster: call kind %d is the cluster's own", kind))
	}
	c.calls.kinds[kind] = h
}
