package node

import (
	"warren/broker"
	"warren/cluster"
	"warren/mq"
)

// lane is the cluster's lane with the broker's names for nodes.
type lane struct{ c *cluster.Cluster }

// Self is this node.
func (l lane) Self() mq.NodeID { return mq.NodeID(l.c.ID()) }

// Send puts a frame on the way.
func (l lane) Send(to mq.NodeID, frame []byte) bool { return l.c.Send(string(to), frame) }

// Dead says that a node has ended.
func (l lane) Dead(id mq.NodeID) bool { return l.c.Dead(string(id)) }

// Peers are the nodes that can be reached.
func (l lane) Peers() []mq.NodeID {
	ids := l.c.Peers()
	out := make([]mq.NodeID, len(ids))
	for i, id := range ids {
		out[i] = mq.NodeID(id)
	}
	return out
}

// frames hands what comes over the lane to the broker.
type frames struct{ b *broker.Broker }

// PeerUp says that a node can be reached.
func (f frames) PeerUp(id string) { f.b.PeerUp(mq.NodeID(id)) }

// PeerDown says that it cannot any more.
func (f frames) PeerDown(id string) { f.b.PeerDown(mq.NodeID(id)) }

// Frame takes one frame.
func (f frames) Frame(from string, frame []byte) { f.b.Frame(mq.NodeID(from), frame) }
