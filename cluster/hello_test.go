package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	idA       = "00000000000000aa"
	idB       = "00000000000000bb"
	clusterC1 = "00000000000000c1"
	clusterC2 = "00000000000000c2"
)

func TestAHelloComesBackAsItWasSent(t *testing.T) {
	want := hello{role: roleBulk, flags: 7, id: idA, target: idB, clusterID: clusterC1, incarnation: 9, addr: "10.0.0.1:25672"}
	got, status, err := readHello(bytes.NewReader(appendHello(nil, want)))
	if err != nil || status != helloOK || got != want {
		t.Errorf("got %+v, %d, %v", got, status, err)
	}
}

// say writes bytes to a node's port and returns all that it answers.
func say(t *testing.T, addr string, b []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(soon))
	c.Write(b)
	c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c)
	return answer
}

func TestHellosAreJudged(t *testing.T) {
	n := start(t, loopback(t), nil)
	f := n.formed(t)
	good := hello{role: roleCall, id: idA, target: n.id, clusterID: f.ClusterID}
	edit := func(change func(*hello)) []byte {
		h := good
		change(&h)
		return appendHello(nil, h)
	}
	patched := func(at int, v byte) []byte {
		b := appendHello(nil, good)
		b[at] = v
		return b
	}
	for _, c := range []struct {
		what   string
		bytes  []byte
		status int // -1: closed without a word
	}{
		{"good", edit(func(*hello) {}), helloOK},
		{"any target", edit(func(h *hello) { h.target = "" }), helloOK},
		{"fresh caller", edit(func(h *hello) { h.clusterID = "" }), helloOK},
		{"fresh node on a lane", edit(func(h *hello) { h.clusterID, h.role = "", roleLane }), helloNotFormed},
		{"another target", edit(func(h *hello) { h.target = idB }), helloOtherNode},
		{"another cluster", edit(func(h *hello) { h.clusterID = clusterC2 }), helloOtherCluster},
		{"another incarnation", edit(func(h *hello) { h.incarnation = 3 }), helloOldTimes},
		{"itself", edit(func(h *hello) { h.id, h.target = n.id, "" }), helloSelf},
		{"role 0", patched(5, 0), helloBadRole},
		{"role 99", patched(5, 99), helloBadRole},
		{"version 9", patched(4, 9), helloBadVersion},
		{"malformed id", patched(8, 'Z'), -1},
		{"no hello", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), -1},
		{"TLS", append([]byte{0x16, 3, 1, 2, 0}, make([]byte, 512)...), helloHasNoSecret},
		{"AMQP", []byte("AMQP\x00\x00\x09\x01"), -1},
		{"cut short", appendHello(nil, good)[:30], -1},
		{"nothing", nil, -1},
	} {
		answer := say(t, n.Advertised(), c.bytes)
		switch {
		case c.status < 0 && len(answer) != 0:
			t.Errorf("%s: answered %q", c.what, answer)
		case c.status >= 0 && (len(answer) != answerBytes || int(answer[5]) != c.status):
			t.Errorf("%s: answered %q, want status %d", c.what, answer, c.status)
		}
	}
	if n.Dead(idB) || n.formed(t).ClusterID == "" {
		t.Error("the node is not well any more")
	}
}

// TestHostileBytesAfterAGoodHello: each role closes the connection, or answers
// with an error, and the node lives on.
func TestHostileBytesAfterAGoodHello(t *testing.T) {
	n := start(t, loopback(t), nil)
	f := n.formed(t)
	garbage := [][]byte{
		nil,
		{0xff, 0xff, 0xff, 0xff},
		bytes.Repeat([]byte{0xff}, 4096),
		make([]byte, 4096),
		append([]byte{0, 0, 0, 3, typeAppend, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 2, 3),
		append([]byte{0, 0, 0, 3, typeInstall, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 2, 3),
		append([]byte{0, 0, 0, 3, typeCall, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kindPrepare, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 2, 3),
		{0, 0, 0, 0, typeCall, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kindJoin, 0, 0, 0, 0, 0, 0, 0, 0},
	}
	tr := n.newTransport(5, new(standing), false, testSnapshots(t))
	defer tr.Close()
	for r := roleControl; r < roleEnd; r++ {
		for _, g := range garbage {
			h := appendHello(nil, hello{role: r, id: idA, clusterID: f.ClusterID})
			if answer := say(t, n.Advertised(), append(h, g...)); len(answer) < answerBytes || answer[5] != helloOK {
				t.Errorf("%s: answered %q", r, answer)
			}
		}
	}
}

func FuzzReadHello(f *testing.F) {
	f.Add(appendHello(nil, hello{role: roleLane, id: idA, addr: "h:1"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, status, err := readHello(bytes.NewReader(b))
		if err == nil && status == helloOK && !bytes.HasPrefix(b, appendHello(nil, h)) {
			t.Errorf("%q was read as %+v", b, h)
		}
		readWelcome(bytes.NewReader(b))
	})
}

// logged collects what a node logs.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

var (
	secretOne = []byte("a secret of thirty-two bytes, #1")
	secretTwo = []byte("a secret of thirty-two bytes, #2")
)

func TestNodesWithOneSecretFormOverTLS(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, func(c *Config) { c.Secret = secretOne })
	meshed(t, nodes)
	big := bytes.Repeat([]byte("x"), 3<<20)
	nodes[0].Send(nodes[1].id, slices.Clone(big))
	eventually(t, "a frame over TLS", func() bool { return nodes[1].rec.count(nodes[0].id) == 1 })
	nodes[1].rec.mu.Lock()
	if !bytes.Equal(nodes[1].rec.frames[nodes[0].id][0], big) {
		t.Error("the frame changed on its way")
	}
	nodes[1].rec.mu.Unlock()
	groups, _ := openGroups(t, nodes, 1)
	commit(t, groups[leaderOf(t, nodes, groups, 0)][0], 100)
}

func TestAnotherSecretIsRefusedAndSaidOnBothSides(t *testing.T) {
	for _, c := range []struct {
		what         string
		mine, theirs []byte
		log          string // on the dialler's side
		heard        string // on the other side
	}{
		{"two secrets", secretTwo, secretOne, "secret does not fit", "cluster secret"},
		{"none against one", nil, secretOne, "secret does not fit", "does not use a cluster secret"},
		{"one against none", secretOne, nil, "secret does not fit", "uses a cluster secret"},
	} {
		t.Run(c.what, func(t *testing.T) {
			cfg := loopback(t)
			cfg.Secret = c.theirs
			heard := new(logged)
			there := startLogged(t, cfg, heard)
			there.formed(t)
			cfg = loopback(t)
			cfg.Secret, cfg.Join = c.mine, []string{there.Advertised()}
			log := new(logged)
			here := startLogged(t, cfg, log)
			eventually(t, "both say why", func() bool { return log.has(c.log) && heard.has(c.heard) })
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := here.Formed(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("formed: %v", err)
			}
			if len(here.Members()) != 1 || len(there.Members()) != 1 {
				t.Error("they see each other")
			}
		})
	}
}
