package node

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"warren/management"
	"warren/mq"
)

// listRequest asks a node for what it lists beyond place After, of a vhost if
// there is one.
type listRequest struct {
	VHost string `json:"vhost,omitempty"`
	After int    `json:"after,omitempty"`
}

// listPage is the answer; Next is 0 on the last one.
type listPage[T any] struct {
	Items []T `json:"items"`
	Next  int `json:"next,omitempty"`
}

// Channels are the clients' open channels on all nodes that answer.
func (n *Node) Channels(ctx context.Context) []management.Channel {
	return everywhere(ctx, n, callChannels, listRequest{}, n.channels())
}

// Consumers are the clients' consumers in a vhost on all nodes that answer.
func (n *Node) Consumers(ctx context.Context, vhost string) []management.Consumer {
	return everywhere(ctx, n, callConsumers, listRequest{VHost: vhost}, n.consumers(ctx, vhost))
}

// everywhere adds what the other nodes list to what this one does.
func everywhere[T any](ctx context.Context, n *Node, kind uint8, ask listRequest, all []T) []T {
	var mu sync.Mutex // guards all
	var asking sync.WaitGroup
	for _, peer := range n.cluster.Peers() {
		asking.Go(func() {
			theirs, err := pagesOf[T](ctx, n, peer, kind, ask)
			if err != nil {
				n.slog.Warn("node left out of a list", "peer", peer, "err", err)
				return
			}
			mu.Lock()
			all = append(all, theirs...)
			mu.Unlock()
		})
	}
	asking.Wait()
	return all
}

// pagesOf asks one other node, page by page. What it lists may change meanwhile.
func pagesOf[T any](ctx context.Context, n *Node, peer string, kind uint8, ask listRequest) (all []T, err error) {
	for {
		var p listPage[T]
		if err := n.ask(ctx, peer, kind, ask, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Next <= ask.After {
			return all, nil
		}
		ask.After = p.Next
	}
}

// answerList answers with what fits of all.
func answerList[T any](all []T, ask listRequest) ([]byte, error) {
	var p listPage[json.RawMessage]
	size := 0
	for at := max(0, ask.After); at < len(all); at++ {
		b, err := json.Marshal(all[at])
		if err != nil {
			return nil, err
		}
		if size += len(b) + 1; size > pageBytesMax && len(p.Items) > 0 {
			p.Next = at
			break
		}
		p.Items = append(p.Items, b)
	}
	return json.Marshal(p)
}

func (n *Node) onChannels(_ context.Context, _ string, req []byte) ([]byte, error) {
	var ask listRequest
	if err := json.Unmarshal(req, &ask); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return answerList(n.channels(), ask)
}

func (n *Node) onConsumers(ctx context.Context, _ string, req []byte) ([]byte, error) {
	var ask listRequest
	if err := json.Unmarshal(req, &ask); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return answerList(n.consumers(ctx, ask.VHost), ask)
}

// channels are those on this node.
func (n *Node) channels() (out []management.Channel) {
	for _, c := range n.amqp.Channels() {
		out = append(out, management.Channel{
			Connection: c.Connection.Name, Node: n.cfg.Name, Number: c.Number, User: c.Connection.User, VHost: c.Connection.VHost,
			Transactional: c.Transactional, Confirm: c.Confirm, Consumers: c.Consumers,
			Unacked: c.Unacked, Unconfirmed: c.Unconfirmed, Prefetch: c.Prefetch, GlobalLimit: c.GlobalLimit,
		})
	}
	return out
}

// consumers are those on this node: the broker knows what they consume, and
// connections what their clients call them.
func (n *Node) consumers(ctx context.Context, vhost string) (out []management.Consumer) {
	of := n.broker.Consumers(ctx, vhost)
	tags := map[mq.ConsumerID]int{}
	all := n.amqp.ConsumerTags()
	for i := range all {
		tags[all[i].ID] = i
	}
	for _, c := range of {
		i, known := tags[c.ID]
		if !known {
			continue // it has just ended
		}
		out = append(out, management.Consumer{
			VHost: c.Queue.VHost, Queue: c.Queue.Name, Connection: all[i].Connection, Channel: all[i].Channel, Tag: all[i].Tag,
			AckRequired: !c.NoAck, Prefetch: c.Prefetch, Active: c.Active, Arguments: management.Arguments(c.Args),
		})
	}
	return out
}
