package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"warren/internal/fields"
)

// saveEvery bounds how often a new address is written to node.json.
const saveEvery = 500 * time.Millisecond

// hintsMax bounds the addresses that are tried for one node.
const hintsMax = 4

// book knows where nodes live: from a connection that worked or a hello, else
// from gossip and from what node.json remembers. Gossip lags behind when a node
// comes back at another address, so its word only adds to what was proven.
type book struct {
	id    *identity
	log   *slog.Logger
	dirty chan struct{} // cap 1: node.json is behind
	fresh chan struct{} // cap 1: there is an address that was not tried yet

	mu    sync.Mutex
	addrs map[string][]string // id -> where to try; the first one counts most
	gone  map[string]bool     // removed for good: not learned again
}

func newBook(id *identity, log *slog.Logger) *book {
	b := &book{id: id, log: log, dirty: make(chan struct{}, 1),
		fresh: make(chan struct{}, 1), addrs: map[string][]string{}, gone: map[string]bool{}}
	for id, addr := range id.get().Members {
		b.addrs[id] = []string{addr}
	}
	return b
}

// prove notes where a node lives for certain, and reports whether that is news.
func (b *book) prove(id, addr string) bool {
	return b.learn(id, addr, func(old []string) []string {
		if len(old) > 0 && old[0] == addr {
			return old
		}
		return []string{addr}
	})
}

// hint notes where a node is said to live, and reports whether that is news.
func (b *book) hint(id, addr string) bool {
	return b.learn(id, addr, func(old []string) []string {
		if slices.Contains(old, addr) {
			return old
		}
		if len(old) == hintsMax {
			old = slices.Delete(slices.Clone(old), 1, 2)
		}
		return append(slices.Clone(old), addr)
	})
}

func (b *book) learn(id, addr string, change func(old []string) []string) bool {
	if _, _, err := net.SplitHostPort(addr); err != nil || len(addr) > addrBytesMax {
		return false
	}
	b.mu.Lock()
	old := b.addrs[id]
	next := change(old)
	news := !b.gone[id] && !slices.Equal(old, next)
	if news {
		b.addrs[id] = next
	}
	b.mu.Unlock()
	if news {
		b.changed()
		select {
		case b.fresh <- struct{}{}:
		default:
		}
	}
	return news
}

// forget drops a node that was removed from the cluster.
func (b *book) forget(id string) {
	b.mu.Lock()
	delete(b.addrs, id)
	b.gone[id] = true
	b.mu.Unlock()
	b.changed()
}

// changed makes run look whether node.json is behind.
func (b *book) changed() {
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

func (b *book) forgotten(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone[id]
}

func (b *book) find(id string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addrs[id]
}

func (b *book) all() map[string][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.addrs)
}

// run saves the addresses of this cluster's members when they change.
// members says which ids those are.
func (b *book) run(ctx context.Context, members func(id string) bool) {
	for {
		select {
		case <-b.dirty:
		case <-ctx.Done():
			return
		}
		known := map[string]string{}
		for id, addrs := range b.all() {
			if members(id) {
				known[id] = addrs[0]
			}
		}
		err := b.id.update(func(f *nodeFile) bool {
			if f.ClusterID == "" || maps.Equal(f.Members, known) {
				return false
			}
			f.Members = known
			return true
		})
		if err != nil {
			b.log.Error("addresses of members not saved", "err", err)
		}
		rest(ctx, saveEvery)
	}
}

// askBook asks a peer where it finds the others: when several nodes came back at
// other addresses, each pair of them needs somebody who knows both.
func (c *Cluster) askBook(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, formCallMax)
	defer cancel()
	b, err := c.Call(ctx, id, kindBook, nil)
	if err != nil {
		return
	}
	d := decoder{fields.Read(b)}
	for d.More() {
		id, addr := d.Text(), d.Text()
		if d.Err() == nil && validID(id) && id != c.id && c.book.hint(id, addr) {
			c.lanes.hurry(id)
		}
	}
}

func (c *Cluster) onBook(context.Context, string, []byte) ([]byte, error) {
	var b []byte
	for id, addrs := range c.book.all() {
		if c.isMember(id) {
			b = fields.AppendString(fields.AppendString(b, id), addrs[0])
		}
	}
	return b, nil
}

// dial connects to a node by its id, wherever it lives now: if there are several
// addresses, the first that answers under that id.
func (c *Cluster) dial(ctx context.Context, id string, r role) (net.Conn, error) {
	addrs := c.book.find(id)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("the address of node %s is not known", id)
	}
	if len(addrs) == 1 {
		conn, _, err := c.mux.dial(ctx, addrs[0], id, r)
		return conn, err
	}
	type result struct {
		addr string
		conn net.Conn
		err  error
	}
	results := make(chan result, len(addrs))
	for _, addr := range addrs {
		go func() { // ends within handshakeTimeout
			conn, _, err := c.mux.dial(ctx, addr, id, r)
			results <- result{addr, conn, err}
		}()
	}
	var errs []error
	for n := len(addrs); n > 0; n-- {
		res := <-results
		if res.err != nil {
			errs = append(errs, res.err)
			continue
		}
		c.book.prove(id, res.addr)
		go func() { // the others, if they come through as well
			for ; n > 1; n-- {
				if late := <-results; late.conn != nil {
					late.conn.Close()
				}
			}
		}()
		return res.conn, nil
	}
	return nil, errors.Join(errs...)
}
