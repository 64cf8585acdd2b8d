package broker

import (
	"context"
	"regexp"
	"sync"
	"sync/atomic"

	"warren/fsm/meta"
	"warren/mq"
)

// The kinds of things that permissions are about, as refusals name them.
const (
	queueResource    = "queue"
	exchangeResource = "exchange"
)

// Login checks a client's name and password and returns the name to show. The
// users in loopback may only come from their own machine, as guest, whose
// password is in every manual. All refusals look the same, as RabbitMQ's do.
func Login(ctx context.Context, m Catalog, c mq.Credentials, loopback map[string]bool) (string, error) {
	refused := mq.Errorf(mq.AccessRefused,
		"Login was refused using authentication mechanism %s. For details see the broker logfile.", c.Mechanism)
	if c.Mechanism != "PLAIN" && c.Mechanism != "AMQPLAIN" {
		return "", refused
	}
	if loopback[c.User] && !c.Loopback {
		return "", refused
	}
	u, err := confirmed(ctx, m, func(v *meta.View) *meta.User { return v.User(c.User) })
	if err != nil {
		return "", err
	}
	if u == nil || !u.CheckPassword(c.Password) {
		return "", refused
	}
	return u.Name, nil
}

// CheckVHost refuses a user a vhost that is not there or not for it.
func CheckVHost(ctx context.Context, m Catalog, user, vhost string) error {
	h, err := confirmed(ctx, m, func(v *meta.View) *meta.VHost { return v.VHost(vhost) })
	if err != nil {
		return err
	}
	if h == nil {
		return mq.Errorf(mq.NotAllowed, "vhost %s not found", vhost)
	}
	p, err := confirmed(ctx, m, func(v *meta.View) *meta.Permission { return v.Permission(user, vhost) })
	if err != nil {
		return err
	}
	if p == nil {
		return mq.Errorf(mq.NotAllowed, "access to vhost '%s' refused for user '%s'", vhost, user)
	}
	return nil
}

// Access tells what one user may do in one vhost. Any number of goroutines
// may use it; a change of permissions counts from the next View on.
type Access struct {
	meta        Catalog
	user, vhost string
	all         bool // an operator's: nothing is refused
	grants      atomic.Pointer[grants]

	mu     sync.Mutex
	topics map[string]*topicGrant // by exchange; guarded by mu, at most topicGrantsMax
}

// NewAccess returns the Access of user in vhost.
func NewAccess(m Catalog, user, vhost string) *Access {
	return &Access{meta: m, user: user, vhost: vhost}
}

// grants are the compiled permissions, good as long as the record is the same.
type grants struct {
	index                  uint64 // of the View in which permission was last looked up
	permission             *meta.Permission
	configure, write, read *pattern
}

// at returns the grants as of a View.
func (a *Access) at(v *meta.View) *grants {
	old := a.grants.Load()
	if old != nil && old.index == v.Index() {
		return old
	}
	g := &grants{index: v.Index(), permission: v.Permission(a.user, a.vhost)}
	switch {
	case old != nil && old.permission == g.permission:
		g.configure, g.write, g.read = old.configure, old.write, old.read
	case g.permission == nil:
		g.configure, g.write, g.read = &pattern{}, &pattern{}, &pattern{}
	default:
		g.configure = newPattern(g.permission.Configure)
		g.write = newPattern(g.permission.Write)
		g.read = newPattern(g.permission.Read)
	}
	a.grants.Store(g)
	return g
}

// AllowPublish refuses a publish to an exchange that the user may not write
// to, as of a View.
func (a *Access) AllowPublish(v *meta.View, exchange string) error {
	return a.check(a.at(v).write, "write", exchangeResource, exchange)
}

// AllowRead refuses to get or consume from a queue that the user may not
// read, as of a View.
func (a *Access) AllowRead(v *meta.View, queue string) error {
	return a.check(a.at(v).read, "read", queueResource, queue)
}

// Configure refuses to make, change or delete a thing.
func (a *Access) Configure(kind, name string) error {
	return a.check(a.at(a.meta.View()).configure, "configure", kind, name)
}

// Write refuses to send messages to a thing.
func (a *Access) Write(kind, name string) error {
	return a.check(a.at(a.meta.View()).write, "write", kind, name)
}

// Read refuses to take messages from a thing.
func (a *Access) Read(kind, name string) error {
	return a.check(a.at(a.meta.View()).read, "read", kind, name)
}

// Any refuses a thing that the user may do nothing with.
func (a *Access) Any(kind, name string) error {
	if a.Write(kind, name) == nil || a.Read(kind, name) == nil {
		return nil
	}
	return a.Configure(kind, name)
}

func (a *Access) check(p *pattern, permission, kind, name string) error {
	if kind == exchangeResource && name == "" {
		name = "amq.default" // what permissions call it
	}
	if a.all || p.matches(name) {
		return nil
	}
	return mq.Errorf(mq.AccessRefused, "%s access to %s '%s' in vhost '%s' refused for user '%s'",
		permission, kind, name, a.vhost, a.user)
}

// decidedMax bounds the names whose match a pattern remembers; a client that
// uses more pays for the regular expression again.
const decidedMax = 512

// pattern is a regular expression over names. It matches anywhere in a name,
// and the empty pattern matches the empty name only, as in RabbitMQ.
type pattern struct {
	all    bool
	regexp *regexp.Regexp // nil matches nothing, unless all

	mu      sync.RWMutex
	decided map[string]bool // guarded by mu, at most decidedMax
}

func newPattern(s string) *pattern {
	switch s {
	case ".*", "^.*$", "^.*", ".*$":
		return &pattern{all: true}
	case "":
		s = "^$"
	}
	re, err := regexp.Compile(s)
	if err != nil {
		re = nil // what cannot be read grants nothing
	}
	return &pattern{regexp: re, decided: map[string]bool{}}
}

func (p *pattern) matches(name string) bool {
	if p.all || p.regexp == nil {
		return p.all
	}
	p.mu.RLock()
	ok, known := p.decided[name]
	p.mu.RUnlock()
	if known {
		return ok
	}
	ok = p.regexp.MatchString(name)
	p.mu.Lock()
	if len(p.decided) >= decidedMax {
		clear(p.decided)
	}
	p.decided[name] = ok
	p.mu.Unlock()
	return ok
}
