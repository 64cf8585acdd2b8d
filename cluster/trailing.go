package cluster

import "fmt"

// A snapshot cuts the log behind it, but for its newest entries: with these a
// follower that was away for a moment goes on where it was. Without them it gets
// the snapshot, and pulls what that links. Which of the two is cheaper depends
// on how much there is, so that decides how much of the log stays: a shard that
// was drained has next to nothing to send, and keeps next to nothing.
//
// It is never so little that a follower's uncommitted tail could be longer: a
// snapshot that ends within such a tail is installed for ever (hashicorp/raft
// #697). A leader has no more than a few entries in flight. Where that does not
// hold, because a leader has just begun its log anew from a snapshot of its own,
// beforeRestore finds it.
const (
	// trailingEntries stay, unless they take more than trailingBytes; but
	// trailingFew do however large they are, which is more than a leader may
	// have in flight.
	trailingEntries = 256
	trailingBytes   = 32 << 20
	trailingFew     = 16
	// Of a state with many messages as much stays as a trailingShare of them
	// takes: who lacks more is as well off with the snapshot. That is some
	// seconds of all that a disk takes, and never most of what is on it; each
	// entry that stays has its place in memory, too.
	trailingShare      = 2
	trailingBytesMax   = 256 << 20
	trailingEntriesMax = 64 << 10
)

// measured is a log that knows how long its entries are. A log.bolt does not.
type measured interface {
	// Newest is how many of the newest entries, up to most, take no more than so
	// many bytes together.
	Newest(bytes int64, most int) uint64
}

// trailing is how many entries are to stay behind a snapshot of a state with so
// many bytes of messages.
func trailing(log measured, state int64) uint64 {
	least := max(log.Newest(trailingBytes, trailingEntries), trailingFew)
	return max(least, log.Newest(min(state/trailingShare, trailingBytesMax), trailingEntriesMax))
}

// keepTrailing tells Raft how much of the log the next snapshot is to leave.
func (g *Group) keepTrailing(r *groupRaft) error {
	log, knows := g.stores.log.(measured)
	m, links := g.machine.(Linker)
	if !knows || g.opts.Meta {
		return nil
	}
	state := int64(0)
	if links {
		state = m.BodyBytes()
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	c := r.ReloadableConfig() // all of it: Raft takes zeros for what they are
	c.TrailingLogs = trailing(log, state)
	if err := r.ReloadConfig(c); err != nil {
		return fmt.Errorf("set how much of the log stays: %w", err)
	}
	return nil
}
