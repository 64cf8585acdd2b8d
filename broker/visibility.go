package broker

import (
	"log/slog"
	"sync"
	"time"

	"warren/mq"
)

// visibleWait is how long a change waits for a live node that does not say
// that it has applied it. Then that node is counted out until it has caught up.
const visibleWait = 500 * time.Millisecond

// visibility holds back the answers to metadata changes until every live node
// has applied them, so that what is declared through one node can be used
// through any other. It lives as long as this node leads the metadata.
type visibility struct {
	lane Lane
	slog *slog.Logger

	mu       sync.Mutex
	ended    bool
	index    map[mq.NodeID]uint64 // how far each node has said that it is
	levels   map[mq.NodeID]int    // what each node has said that it knows, see Level
	out      map[mq.NodeID]bool   // counted out until it catches up
	waits    []visibleWaiter      // in the order of index
	armed    bool                 // expire will run
	laggards uint64               // how often a node was counted out
}

type visibleWaiter struct {
	index uint64
	since time.Time
	tell  func(visible bool)
}

func newVisibility(lane Lane, log *slog.Logger) *visibility {
	return &visibility{lane: lane, slog: log, index: map[mq.NodeID]uint64{}, levels: map[mq.NodeID]int{}, out: map[mq.NodeID]bool{}}
}

// await calls tell once every live node has applied index, or with false when
// this node leads no more and cannot know.
func (v *visibility) await(index uint64, tell func(visible bool)) {
	v.mu.Lock()
	if v.ended {
		v.mu.Unlock()
		tell(false)
		return
	}
	v.waits = append(v.waits, visibleWaiter{index, time.Now(), tell})
	v.arm(visibleWait)
	v.release()
}

// arm makes expire run. Runs with mu held.
func (v *visibility) arm(after time.Duration) {
	if !v.armed {
		v.armed = true
		time.AfterFunc(after, v.expire)
	}
}

// reached hears how far a node is, and what level it knows.
func (v *visibility) reached(node mq.NodeID, index uint64, level int) {
	v.mu.Lock()
	v.levels[node] = level
	v.index[node] = max(v.index[node], index)
	if v.out[node] && (len(v.waits) == 0 || index >= v.waits[0].index) {
		delete(v.out, node)
		v.slog.Info("node applies metadata again", "peer", node, "index", index)
	}
	v.release()
}

// lost forgets a node that cannot be reached: it is not live.
func (v *visibility) lost(node mq.NodeID) {
	v.mu.Lock()
	delete(v.index, node)
	delete(v.levels, node)
	delete(v.out, node)
	v.release()
}

// release tells everybody whose change is visible now. Called with mu held;
// releases it.
func (v *visibility) release() {
	low := v.low()
	n := 0
	for n < len(v.waits) && v.waits[n].index <= low {
		n++
	}
	told := v.waits[:n:n]
	v.waits = v.waits[n:]
	v.mu.Unlock()
	for _, w := range told {
		w.tell(true)
	}
}

// low is how far the live nodes are. Runs with mu held.
func (v *visibility) low() uint64 {
	low := v.index[v.lane.Self()]
	for _, p := range v.lane.Peers() {
		if !v.out[p] {
			low = min(low, v.index[p])
		}
	}
	return low
}

// expire counts out the nodes that the oldest change has waited for too long.
func (v *visibility) expire() {
	v.mu.Lock()
	v.armed = false
	if v.ended || len(v.waits) == 0 {
		v.mu.Unlock()
		return
	}
	if left := visibleWait - time.Since(v.waits[0].since); left > 0 {
		v.arm(left)
		v.mu.Unlock()
		return
	}
	for _, p := range v.lane.Peers() {
		if index := v.index[p]; index < v.waits[0].index && !v.out[p] {
			v.out[p] = true
			v.laggards++
			v.slog.Warn("node does not apply metadata, changes no longer wait for it", "peer", p, "index", index, "want", v.waits[0].index)
		}
	}
	v.arm(visibleWait)
	v.release()
}

// end answers everybody: this node leads no more.
func (v *visibility) end() {
	v.mu.Lock()
	v.ended = true
	told := v.waits
	v.waits = nil
	v.mu.Unlock()
	for _, w := range told {
		w.tell(false)
	}
}
