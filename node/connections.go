package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"warren/amqp"
	"warren/management"
	"warren/mq"
)

// pageBytesMax is how much of its connections a node tells in one answer: well
// below what a call may carry. One connection has at most the client
// properties that fit a frame.
const pageBytesMax = 1 << 20

// pageRequest asks a node for its connections with an id beyond After, or for
// those of a name.
type pageRequest struct {
	Name  string `json:"name,omitempty"`
	After uint64 `json:"after,omitempty"`
}

// page is the answer; Next is 0 on the last one.
type page struct {
	Connections []json.RawMessage `json:"connections"` // each a management.Connection
	Next        uint64            `json:"next,omitempty"`
}

// closeRequest asks a node to close a connection; it answers a bool.
type closeRequest struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Login checks an operator's name and password.
func (n *Node) Login(ctx context.Context, user, password string, here bool) ([]string, error) {
	name, err := n.broker.Login(ctx, mq.Credentials{Mechanism: "PLAIN", User: user, Password: password, Loopback: here})
	if err != nil {
		return nil, err
	}
	u := n.broker.View().User(name)
	if u == nil {
		return nil, mq.Errorf(mq.AccessRefused, "user '%s' has gone", name)
	}
	return slices.Clone(u.Tags), nil
}

// Connections are the clients' connections on all nodes that answer.
func (n *Node) Connections(ctx context.Context, name string) []management.Connection {
	var all []management.Connection
	for _, c := range n.amqp.Connections() {
		if name == "" || c.Name == name {
			all = append(all, n.shown(&c))
		}
	}
	if name != "" && len(all) > 0 {
		return all // no need to wait for anybody
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, peer := range n.cluster.Peers() {
		asking.Go(func() {
			theirs, err := n.connectionsOf(ctx, peer, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				all = append(all, theirs...)
			case name == "" || len(all) == 0:
				n.slog.Warn("node left out of the list of connections", "peer", peer, "err", err)
			}
			if name != "" && len(all) > 0 {
				cancel()
			}
		})
	}
	asking.Wait()
	return all
}

// connectionsOf asks one other node, page by page.
func (n *Node) connectionsOf(ctx context.Context, peer, name string) ([]management.Connection, error) {
	var all []management.Connection
	for ask := (pageRequest{Name: name}); ; {
		var p page
		if err := n.ask(ctx, peer, callConnections, ask, &p); err != nil {
			return nil, err
		}
		for _, raw := range p.Connections {
			c := management.Connection{NodeID: peer}
			if err := json.Unmarshal(raw, &c); err != nil {
				return nil, fmt.Errorf("connections of node %s: %w", peer, err)
			}
			all = append(all, c)
		}
		if p.Next <= ask.After {
			return all, nil
		}
		ask.After = p.Next
	}
}

// CloseConnection closes a connection on whichever node it is.
func (n *Node) CloseConnection(ctx context.Context, c management.Connection, reason string) bool {
	if c.NodeID == n.cluster.ID() {
		return n.amqp.CloseConnection(c.Name, reason)
	}
	closed := false
	if err := n.ask(ctx, c.NodeID, callCloseConnection, closeRequest{c.Name, reason}, &closed); err != nil {
		n.slog.Warn("connection not closed", "peer", c.NodeID, "name", c.Name, "err", err)
	}
	return closed
}

// ask makes a call whose request and answer are JSON.
func (n *Node) ask(ctx context.Context, peer string, kind uint8, request, answer any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if b, err = n.cluster.Call(ctx, peer, kind, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("answer of node %s: %w", peer, err)
	}
	return nil
}

func (n *Node) onConnections(_ context.Context, _ string, req []byte) ([]byte, error) {
	var ask pageRequest
	if err := json.Unmarshal(req, &ask); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	p, err := n.page(n.amqp.Connections(), ask)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

// page is the first of all that fits an answer.
func (n *Node) page(all []amqp.Connection, ask pageRequest) (p page, err error) {
	size := 0
	for i := range all {
		c := &all[i] // by id
		if c.ID <= ask.After || ask.Name != "" && ask.Name != c.Name {
			continue
		}
		b, err := json.Marshal(n.shown(c))
		if err != nil {
			return page{}, err
		}
		if size += len(b) + 1; size > pageBytesMax && len(p.Connections) > 0 {
			return p, nil
		}
		p.Connections = append(p.Connections, b)
		p.Next = c.ID
	}
	p.Next = 0
	return p, nil
}

func (n *Node) onCloseConnection(_ context.Context, _ string, req []byte) ([]byte, error) {
	var ask closeRequest
	if err := json.Unmarshal(req, &ask); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return json.Marshal(n.amqp.CloseConnection(ask.Name, ask.Reason))
}

// shown is a connection as management has it.
func (n *Node) shown(c *amqp.Connection) management.Connection {
	name, _ := c.ClientProperties.String("connection_name")
	return management.Connection{
		Name: c.Name, UserProvidedName: name, User: c.User, VHost: c.VHost,
		Node: n.cfg.Name, NodeID: n.cluster.ID(), State: c.State, Channels: c.Channels,
		PeerHost: c.PeerHost, PeerPort: c.PeerPort, Host: c.Host, Port: c.Port,
		SSL: c.TLS, AuthMechanism: c.Mechanism,
		ChannelMax: c.ChannelMax, FrameMax: c.FrameMax, Timeout: int64(c.Heartbeat.Seconds()),
		ConnectedAt: c.OpenedAt.UnixMilli(), RecvOct: c.BytesReceived, SendOct: c.BytesSent,
		ClientProperties: management.Properties(c.ClientProperties),
	}
}
