package cluster

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// standing is what a replica may do in its group. Its group sets it, and the
// transport, which every request passes, holds Raft to it.
type standing struct{ now atomic.Int32 }

const (
	// standWhole: all.
	standWhole int32 = iota
	// standFlawed: its log is whole, so that its votes and acknowledgements are
	// worth what they say, but its state has lost something: it must not lead.
	standFlawed
	// standRefilling: it may have acknowledged entries that it has no more. What
	// it stores now it acknowledges; it neither votes nor stands for election.
	standRefilling
	// standLost: its log is damaged. It does nothing.
	standLost
)

var (
	errMustNotLead = errors.New("this replica is damaged or being rebuilt, and must not lead")
	errLogDamaged  = errors.New("the log of this replica is damaged")
)

func (s *standing) votes() bool { return s.now.Load() < standRefilling }
func (s *standing) leads() bool { return s.now.Load() == standWhole }

// worsen changes the standing to what is worse; false: it was so already.
func (s *standing) worsen(to int32) bool {
	for {
		now := s.now.Load()
		if now >= to {
			return false
		}
		if s.now.CompareAndSwap(now, to) {
			return true
		}
	}
}

// refuse answers a request that Raft must not see.
func (s *standing) refuse(cmd any, header raft.RPCHeader) (r raft.RPCResponse, refused bool) {
	now := s.now.Load()
	if now == standWhole {
		return r, false
	}
	switch cmd.(type) {
	case *raft.RequestVoteRequest:
		return raft.RPCResponse{Response: &raft.RequestVoteResponse{RPCHeader: header}}, now >= standRefilling
	case *raft.RequestPreVoteRequest:
		return raft.RPCResponse{Response: &raft.RequestPreVoteResponse{RPCHeader: header}}, now >= standRefilling
	case *raft.TimeoutNowRequest:
		return raft.RPCResponse{Error: errMustNotLead}, true
	default:
		return raft.RPCResponse{Error: errLogDamaged}, now >= standLost
	}
}
