package broker

import (
	"fmt"
	"testing"

	"warren/fsm/meta"
	"warren/mq"
)

func TestLoginTellsNothingButRefused(t *testing.T) {
	f := newTopo(t)
	local := map[string]bool{"guest": true}
	for _, c := range []struct {
		mq.Credentials
		ok bool
	}{
		{mq.Credentials{Mechanism: "PLAIN", User: "guest", Password: "guest", Loopback: true}, true},
		{mq.Credentials{Mechanism: "AMQPLAIN", User: "guest", Password: "guest", Loopback: true}, true},
		{mq.Credentials{Mechanism: "PLAIN", User: "guest", Password: "guest"}, false},
		{mq.Credentials{Mechanism: "PLAIN", User: "bob", Password: "secret"}, true},
		{mq.Credentials{Mechanism: "PLAIN", User: "bob", Password: "Secret", Loopback: true}, false},
		{mq.Credentials{Mechanism: "PLAIN", User: "bob"}, false},
		{mq.Credentials{Mechanism: "PLAIN", User: "nobody", Password: "x"}, false},
		{mq.Credentials{Mechanism: "EXTERNAL", User: "bob", Password: "secret"}, false},
	} {
		user, err := Login(t.Context(), f.catalog, c.Credentials, local)
		if c.ok {
			if err != nil || user != c.User {
				t.Errorf("%+v: %q, %v", c.Credentials, user, err)
			}
			continue
		}
		wantText(t, err, fmt.Sprintf("ACCESS_REFUSED - Login was refused using authentication mechanism %s. "+
			"For details see the broker logfile.", c.Mechanism))
	}
}

func TestVHostMustExistAndBeOpenToTheUser(t *testing.T) {
	f := newTopo(t)
	if err := CheckVHost(t.Context(), f.catalog, "bob", "/"); err != nil {
		t.Error(err)
	}
	wantText(t, CheckVHost(t.Context(), f.catalog, "bob", "nope"), "NOT_ALLOWED - vhost nope not found")
	wantText(t, CheckVHost(t.Context(), f.catalog, "bob", "other"), "NOT_ALLOWED - access to vhost 'other' refused for user 'bob'")
}

func TestPatternsMatchAsInRabbitMQ(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{".*", "", true}, {".*", "x", true},
		{"", "", true}, {"", "x", false}, {"^$", "x", false},
		{"b", "abc", true}, // anywhere
		{"^b", "abc", false}, {"^(a|b)-.*", "b-1", true},
		{"(?=a)", "a", false}, // what cannot be read grants nothing
	} {
		p := newPattern(c.pattern)
		for range 2 { // decided, then remembered
			if got := p.matches(c.name); got != c.want {
				t.Errorf("%q on %q: got %v", c.pattern, c.name, got)
			}
		}
	}
	if CheckPattern("(?=a)") == nil || CheckPattern("^a") != nil {
		t.Error("CheckPattern and newPattern disagree")
	}
}

func TestPatternRemembersABoundedNumberOfNames(t *testing.T) {
	p := newPattern("^a")
	for i := range 10 * decidedMax {
		p.matches(fmt.Sprint("a", i))
	}
	if n := len(p.decided); n > decidedMax {
		t.Errorf("%d names remembered", n)
	}
}

func TestPermissionsCountFromTheNextViewOn(t *testing.T) {
	f := newTopo(t)
	a := NewAccess(f.catalog, "bob", "/")
	allowed := func(x string) bool { return a.AllowPublish(f.catalog.View(), x) == nil }
	if !allowed("write-x") || allowed("x") || allowed("") {
		t.Error("bob writes what he may not, or not what he may")
	}
	change := func(op meta.Op) {
		if _, err := f.catalog.Propose(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	change(meta.PermissionSet{User: "bob", VHost: "/", Write: "^amq\\.default$"})
	if allowed("write-x") || !allowed("") {
		t.Error("the old permission counts")
	}
	change(meta.SettingPut{Name: "x", Value: "y"})
	if !allowed("") {
		t.Error("another change took the permission away")
	}
	change(meta.PermissionClear{User: "bob", VHost: "/"})
	if allowed("") || a.Any(queueResource, "") == nil {
		t.Error("without a permission something is allowed")
	}
	wantText(t, a.AllowRead(f.catalog.View(), "q"), refusedBob("read", "queue", "q"))
}

func TestPublishCheckAllocatesNothing(t *testing.T) {
	f := newTopo(t)
	a := NewAccess(f.catalog, "bob", "/")
	v := f.catalog.View()
	if n := testing.AllocsPerRun(100, func() {
		if a.AllowPublish(v, "write-x") != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}
