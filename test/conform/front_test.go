package conform

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// front stands between a client's tests and a node. It passes bytes on, and
// answers the two requests of RabbitMQ's management API that such tests use to
// cut connections: GET /api/connections and DELETE /api/connections/NAME.
type front struct {
	amqp string // host:port for the client
	api  string // host:port of the management API
	node string // host:port of the node

	mu    sync.Mutex
	next  int
	conns map[string]*frontConn
}

// frontConn is one connection through a front.
type frontConn struct {
	client, node net.Conn
	name         string // connection_name of its client properties, once it was sent
}

func startFront(t *testing.T, node string) *front {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{amqp: ln.Addr().String(), node: node, conns: map[string]*frontConn{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/connections/", f.list)
	mux.HandleFunc("DELETE /api/connections/{name}", f.drop)
	api := httptest.NewServer(mux)
	f.api = strings.TrimPrefix(api.URL, "http://")
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.carry(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		api.Close()
		f.dropAll()
		all.Wait()
	})
	return f
}

func (f *front) apiPort() string {
	_, port, _ := net.SplitHostPort(f.api)
	return port
}

// carry passes bytes both ways until one side ends.
func (f *front) carry(client net.Conn) {
	defer client.Close()
	node, err := net.Dial("tcp", f.node)
	if err != nil {
		return
	}
	defer node.Close()
	c := &frontConn{client: client, node: node}
	f.mu.Lock()
	f.next++
	id := fmt.Sprintf("connection %d", f.next)
	f.conns[id] = c
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, id)
		f.mu.Unlock()
	}()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(client, node) // it ends when either does
		client.Close()
	})
	f.forward(c)
	node.Close()
	back.Wait()
}

// headBytes is how far into what a client sends its properties reach.
const headBytes = 8 << 10

// forward passes on what the client sends, and reads its name out of it.
func (f *front) forward(c *frontConn) {
	var head []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := c.client.Read(buf)
		if len(head) < headBytes && n > 0 {
			head = append(head, buf[:n]...)
			if name := connectionName(head); name != "" {
				f.mu.Lock()
				c.name = name
				f.mu.Unlock()
				head = make([]byte, headBytes)
			}
		}
		if _, werr := c.node.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// connectionName finds the long string connection_name of a field table.
func connectionName(b []byte) string {
	_, after, ok := bytes.Cut(b, []byte("\x0fconnection_nameS"))
	if !ok || len(after) < 4 {
		return ""
	}
	n := int(binary.BigEndian.Uint32(after))
	if n > len(after)-4 {
		return ""
	}
	return string(after[4 : 4+n])
}

func (f *front) list(w http.ResponseWriter, _ *http.Request) {
	type properties struct {
		Name string `json:"connection_name"`
	}
	type connection struct {
		Name       string     `json:"name"`
		Properties properties `json:"client_properties"`
	}
	out := []connection{}
	f.mu.Lock()
	for id, c := range f.conns {
		out = append(out, connection{id, properties{c.name}})
	}
	f.mu.Unlock()
	json.NewEncoder(w).Encode(out)
}

func (f *front) drop(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	c := f.conns[r.PathValue("name")]
	f.mu.Unlock()
	if c == nil {
		http.NotFound(w, r)
		return
	}
	c.client.Close()
	c.node.Close()
	w.WriteHeader(http.StatusNoContent)
}

func (f *front) dropAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.client.Close()
		c.node.Close()
	}
}
