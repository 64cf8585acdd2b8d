package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	seekFast   = 200 * time.Millisecond // while alone, at first
	seekSlow   = time.Second            // while alone, after seekFastMax
	seekRarely = 5 * time.Second        // while some are known and others are not
	// seekFastMax is how long a start counts as "started together".
	seekFastMax = 10 * time.Second
	lookupMax   = 2 * time.Second
	seekAtOnce  = 16 // addresses that are tried at the same time
)

// seeker looks for other nodes for as long as the node runs: under the names of
// the join list, which are resolved anew each time, and where node.json saw
// members last.
type seeker struct {
	names  []string
	book   *book
	gossip *gossip

	mu   sync.Mutex
	last map[string]error // per name: why it was not reached; nil entry removed
}

func (s *seeker) run(ctx context.Context) {
	start := time.Now()
	for {
		found := s.round(ctx)
		wait := seekFast
		switch {
		case found:
			wait = seekRarely
		case time.Since(start) > seekFastMax:
			wait = seekSlow
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.book.fresh:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// round tries every address at which no living member is known, and reports
// whether nothing is left to look for.
func (s *seeker) round(ctx context.Context) bool {
	members, _ := s.gossip.view()
	known := map[string]bool{}
	for _, m := range members {
		if m.Alive {
			known[m.seen], known[m.Addr] = true, true
		}
	}
	targets := map[string]bool{}
	for _, addrs := range s.book.all() {
		for _, addr := range addrs {
			targets[addr] = true
		}
	}
	for _, name := range s.names {
		targets[name] = true
	}
	var work sync.WaitGroup
	slots := make(chan struct{}, seekAtOnce)
	for name := range targets {
		if known[name] {
			s.note(name, nil)
			continue
		}
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			s.note(name, s.try(ctx, name, known))
		})
	}
	work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.last) == 0
}

func (s *seeker) try(ctx context.Context, name string, known map[string]bool) error {
	addrs, err := resolve(ctx, name)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if known[addr] || s.gossip.wire.isMine(addr) {
			continue
		}
		_, jerr := s.gossip.list.Join([]string{addr})
		if jerr != nil && !s.gossip.wire.isMine(addr) {
			err = errors.Join(err, jerr)
		}
	}
	return err
}

func (s *seeker) note(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.last, name)
		return
	}
	s.last[name] = err
}

// missing says for each name that is not reached why not.
func (s *seeker) missing() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]string{}
	for name, err := range s.last {
		m[name] = err.Error()
	}
	return m
}

// resolve turns host:port into every ip:port behind it.
func resolve(ctx context.Context, name string) ([]string, error) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupMax)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, 0, len(ips))
	for _, ip := range ips {
		addrs = append(addrs, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return addrs, nil
}

// advertised finds what others reach this node at: what is configured, with the
// listener's port if it has none; else the listener's address; else, when that
// is every address, the one that leads to the first of the join list, or the
// first that is not loopback.
func advertised(ctx context.Context, configured string, listener net.Addr, join []string) (said string, ip netip.AddrPort, err error) {
	own, err := netip.ParseAddrPort(listener.String())
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	if configured != "" {
		if _, _, err := net.SplitHostPort(configured); err != nil {
			configured = net.JoinHostPort(configured, portOf(listener.String()))
		}
		addrs, err := resolve(ctx, configured)
		if err == nil {
			ip, err = netip.ParseAddrPort(addrs[0])
		}
		return configured, ip, err
	}
	if !own.Addr().IsUnspecified() {
		return own.String(), own, nil
	}
	ip = netip.AddrPortFrom(outward(ctx, join), own.Port())
	return ip.String(), ip, nil
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func outward(ctx context.Context, join []string) netip.Addr {
	for _, name := range join {
		var d net.Dialer
		c, err := d.DialContext(ctx, "udp", name) // sends nothing: it only asks for the route
		if err != nil {
			continue
		}
		local, err := netip.ParseAddrPort(c.LocalAddr().String())
		c.Close()
		if err == nil {
			return local.Addr().Unmap()
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr().Unmap()
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
