package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/amqp"
	"warren/fsm/meta"
	"warren/management"
	"warren/mq"
)

// joining is the configuration of a node that joins others.
func joining(t *testing.T, name string, to ...*running) Config {
	cfg := alone(t, name)
	cfg.BootstrapExpect = 0
	for _, n := range to {
		cfg.Join = append(cfg.Join, n.address())
	}
	return cfg
}

// voters are the voting members of a group, from its leader's node.
func voters(t *testing.T, nodes []*running, id mq.GroupID) (out []string) {
	t.Helper()
	for _, n := range nodes {
		g := n.groups.get(id)
		if g == nil {
			continue
		}
		if _, leads := g.Leading(); !leads {
			continue
		}
		servers, _, err := g.Servers()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range servers {
			if s.Voter {
				out = append(out, s.ID)
			}
		}
		return out
	}
	return nil
}

func TestASingleNodeGrowsToThreeAndAFourthJoins(t *testing.T) {
	t.Parallel() // it waits most of its time
	one := start(t, alone(t, "one")).awaitReady()
	ch := one.channel()
	declare(t, ch, "kept")
	for i := range 20 {
		publish(t, ch, "kept", fmt.Sprint(i))
	}
	nodes := []*running{one, start(t, joining(t, "two", one)), start(t, joining(t, "three", one))}
	for _, n := range nodes {
		n.awaitReady()
	}
	queues := []mq.GroupID{1, 2}
	await(t, "three voters in every group", func() bool {
		for _, id := range append([]mq.GroupID{metaGroup}, queues...) {
			if len(voters(t, nodes, id)) != 3 {
				return false
			}
		}
		return true
	})
	four := start(t, joining(t, "four", nodes[1], nodes[2])).awaitReady()
	nodes = append(nodes, four)
	await(t, "the fourth to vote on the metadata", func() bool { return slices.Contains(voters(t, nodes, metaGroup), four.cluster.ID()) })
	for _, id := range queues {
		if got := voters(t, nodes, id); slices.Contains(got, four.cluster.ID()) {
			t.Errorf("group %d has %v: three replicas are enough", id, got)
		}
	}
	for _, n := range nodes {
		if s := n.status(); len(s.Members) != 4 || s.ClusterID != one.status().ClusterID || slices.ContainsFunc(s.Members, func(m management.Member) bool { return !m.Alive }) {
			t.Errorf("%s: %+v", n.cfg.Name, s)
		}
	}

	// The first node, which had everything, goes; nothing is lost.
	far := four.channel()
	one.stop()
	for i := range 20 {
		if got := get(t, far, "kept"); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
	declare(t, far, "new")
	publish(t, far, "new", "x")
	one = start(t, one.cfg).awaitReady()
	if got := get(t, one.channel(), "new"); got != "x" {
		t.Errorf("got %q", got)
	}
}

func call(t *testing.T, method, at, user string) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(user, user)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

func TestAnyNodeListsAndClosesTheConnectionsOfAll(t *testing.T) {
	one := start(t, alone(t, "one")).awaitReady()
	two := start(t, joining(t, "two", one)).awaitReady()
	here, there := one.dial("here"), two.dial("there")
	closed := there.NotifyClose(make(chan *amqp091.Error, 1))
	list := func(n *running) (names []string) {
		code, body := call(t, "GET", n.http+"/api/connections/", "guest")
		var got []struct {
			Node             string `json:"node"`
			ClientProperties struct {
				Name string `json:"connection_name"`
			} `json:"client_properties"`
		}
		if err := json.Unmarshal(body, &got); err != nil || code != 200 {
			t.Fatal(code, string(body), err)
		}
		for _, c := range got {
			names = append(names, c.ClientProperties.Name+" on "+c.Node)
		}
		slices.Sort(names)
		return names
	}
	for _, n := range []*running{one, two} {
		await(t, "both to be listed by "+n.cfg.Name, func() bool { return slices.Equal(list(n), []string{"here on one", "there on two"}) })
	}
	name := there.LocalAddr().String() + " -> " + two.amqp
	if code, body := call(t, "GET", one.http+"/api/connections/"+url.PathEscape(name), "guest"); code != 200 || !bytes.Contains(body, []byte(`"node":"two"`)) {
		t.Errorf("the other node's connection: %d %s", code, body)
	}
	if code, body := call(t, "DELETE", one.http+"/api/connections/"+url.PathEscape(name), "guest"); code != 204 {
		t.Fatalf("closing it: %d %s", code, body)
	}
	select {
	case e := <-closed:
		if e == nil || e.Code != 320 || e.Reason != "CONNECTION_FORCED - Closed via management plugin" {
			t.Errorf("the client heard %v", e)
		}
	case <-time.After(patience):
		t.Fatal("the client heard nothing")
	}
	if here.IsClosed() {
		t.Error("the other connection was closed too")
	}
	await(t, "it to be gone", func() bool { return slices.Equal(list(two), []string{"here on one"}) })
	if code, _ := call(t, "DELETE", one.http+"/api/connections/"+url.PathEscape(name), "guest"); code != 404 {
		t.Errorf("closing it again: %d, want 404", code)
	}
	two.stop()
	if got := list(one); !slices.Equal(got, []string{"here on one"}) {
		t.Errorf("with the other node gone: %q", got)
	}
}

func TestOperatorsAreTheBrokersUsersWithTags(t *testing.T) {
	n := start(t, alone(t, "one")).awaitReady()
	hash := func(name string) string { return meta.HashPassword([4]byte{1, 2, 3, 4}, name) }
	err := n.groups.propose(t.Context(),
		meta.UserPut{Name: "plain", PasswordHash: hash("plain")},
		meta.UserPut{Name: "watch", PasswordHash: hash("watch"), Tags: []string{"monitoring"}})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]int{"guest": 200, "watch": 200, "plain": 401, "nobody": 401} {
		if code, body := call(t, "GET", n.http+"/api/connections", user); code != want {
			t.Errorf("%s: %d %s, want %d", user, code, body, want)
		}
	}
	_, err = n.Login(t.Context(), "guest", "guest", false)
	var refused *mq.Error
	if !errors.As(err, &refused) || refused.Code != mq.AccessRefused {
		t.Errorf("guest from elsewhere: %v, want 403", err)
	}
}

func TestConnectionsAreToldPageByPage(t *testing.T) {
	log := newLog(t)
	n, err := build(alone(t, "one"), log)
	if err != nil {
		t.Fatal(err)
	}
	defer n.closeCluster()
	var all []amqp.Connection
	for id := range uint64(300) {
		all = append(all, amqp.Connection{ID: id + 1, Name: fmt.Sprint("c", id+1), ClientProperties: mq.Table{{Key: "x", Value: string(make([]byte, 8000))}}})
	}
	var got []string
	pages := 0
	for ask := (pageRequest{}); ; pages++ {
		p, err := n.page(all, ask)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, raw := range p.Connections {
			var c management.Connection
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			got = append(got, c.Name)
			size += len(raw)
		}
		if size > pageBytesMax {
			t.Errorf("a page of %d bytes", size)
		}
		if ask.After = p.Next; ask.After == 0 {
			break
		}
	}
	if len(got) != len(all) || got[0] != "c1" || got[299] != "c300" || pages < 5 {
		t.Errorf("%d connections on %d pages", len(got), pages+1)
	}
	if p, err := n.page(all, pageRequest{Name: "c7"}); err != nil || len(p.Connections) != 1 || p.Next != 0 {
		t.Errorf("by name: %d connections, next %d, %v", len(p.Connections), p.Next, err)
	}
}
