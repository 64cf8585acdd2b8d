package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"warren/cluster"
	"warren/mq"
)

// The small requests that nodes make of each other.
const (
	callApplied         = cluster.KindNode + iota // how far a group's log is applied
	callConnections                               // which clients are connected
	callCloseConnection                           // close one
	callChannels                                  // which channels they have open
	callConsumers                                 // and which consumers
)

// answer says what this node does with the requests of others. Before the
// cluster starts.
func (n *Node) answer() {
	n.cluster.OnJoin(n.groups.admit)
	n.cluster.OnCall(callApplied, n.groups.onApplied)
	n.cluster.OnCall(callConnections, n.onConnections)
	n.cluster.OnCall(callCloseConnection, n.onCloseConnection)
	n.cluster.OnCall(callChannels, n.onChannels)
	n.cluster.OnCall(callConsumers, n.onConsumers)
}

var errMalformed = errors.New("malformed request or answer")

func (g *groups) onApplied(_ context.Context, _ string, req []byte) ([]byte, error) {
	if len(req) != 8 {
		return nil, errMalformed
	}
	group := g.get(mq.GroupID(binary.BigEndian.Uint64(req)))
	if group == nil {
		return nil, errors.New("no replica of that group here")
	}
	if err := g.unfit(group); err != nil {
		return nil, fmt.Errorf("group %d: %w", group.ID(), err)
	}
	return binary.BigEndian.AppendUint64(nil, group.AppliedIndex()), nil
}

func (g *groups) askApplied(ctx context.Context, id string, gid uint64) (uint64, error) {
	r, err := g.cluster.Call(ctx, id, callApplied, binary.BigEndian.AppendUint64(nil, gid))
	if err != nil {
		return 0, err
	}
	if len(r) != 8 {
		return 0, errMalformed
	}
	return binary.BigEndian.Uint64(r), nil
}
