package cluster

import "time"

// A queue that has been drained leaves behind what it had on disk: in segments
// that snapshots still link, and in the log since the last snapshot. Another one
// lets go of both, and the snapshots before it go as well: they are of a log
// whose rest has been cut.
const (
	wasteEvery = 10 * time.Second
	// wasteBytes that only snapshots still hold ask for one, whatever goes on.
	wasteBytes = 256 << 20
	// wasteBytesMin ask for one, too, if it is cheap: no more of that than a
	// wasteFlow-th has come to the log since the last look, so that a busy group
	// waits for SnapshotBytes, and the messages that the snapshot would have to
	// write come to less than half of it.
	wasteBytesMin = 16 << 20
	wasteFlow     = 16
)

// wasteLook is what a look for waste has found.
type wasteLook struct {
	applied, taken uint64 // entries, and snapshots
	bytes          int64  // of log since the last snapshot
	still          bool   // all that is as it was before
	wastes         bool   // older snapshots, and most of the log, are to go
	fresh          bool   // the newest snapshot is of the state as it is; it needs no other
}

// lookForWaste looks at the group once more, some time after the last look. At
// one that is idle it looks only once more: it costs nothing from then on.
func (g *Group) lookForWaste(last wasteLook) wasteLook {
	now := wasteLook{applied: g.apply.applied.Load(), taken: g.snapshots.taken.Load(), bytes: g.apply.growth.bytesSince()}
	now.fresh = g.apply.growth.countSince() == 0
	now.still = now.applied == last.applied && now.taken == last.taken
	m, links := g.machine.(Linker)
	if !links || !g.standing.leads() || now.still && last.still {
		return now
	}
	linked, err := g.stores.snapshots.Linked()
	if err != nil {
		g.log.Warn("look for old snapshots", "err", err)
		return wasteLook{}
	}
	flow := now.bytes - last.bytes
	if flow < 0 { // there was a snapshot
		flow = now.bytes
	}
	now.wastes = wasteful(linked-m.LinkedBytes(), now.bytes, flow, m.BodyBytes())
	return now
}

// wasteful reports whether a snapshot is worth its while: with so much that
// only snapshots hold, so much log since the last one, of which flow came since
// the last look, and so much in messages. No more of these than came with that
// log can be in no segment yet.
func wasteful(held, log, flow, bodies int64) bool {
	gain := held + log - 2*min(bodies, log)
	return held > wasteBytes || gain > wasteBytesMin && gain > wasteFlow*flow
}
