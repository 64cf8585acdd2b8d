package broker

import (
	"fmt"
	"strconv"

	"warren/fsm/meta"
	"warren/mq"
)

// Nodes of different builds can be in a cluster while it is upgraded, one after
// the other. What a build writes into logs or sends to other nodes, an older one
// may not be able to read, and a replica that cannot read its log must stop. So
// each build has a level; the metadata has that of the cluster, which its leader
// raises once every member has said that it knows it; and what came with a level
// is not used before. It never falls: logs may hold by then what older builds
// cannot read.

// Level is what this build knows. 1 is all before there were levels.
//
//	2: queue.EnqueueFenced
//	3: queue.EnqueuePart, queue.EnqueueWhole; large bodies fetched in pieces
const Level = 3

// levelFenced is the level from which on queue.EnqueueFenced is used.
const levelFenced = 2

// levelParts is the level from which on large bodies travel in parts.
const levelParts = 3

// levelSetting is the name of the cluster's level among the settings, which
// builds of all levels can read.
const levelSetting = "feature_level"

// levelOf is a cluster's level.
func levelOf(v *meta.View) int {
	s, _ := v.Setting(levelSetting)
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// RaiseLevel is what the metadata leader has to propose for the cluster to use
// all that its members know; nil if it does, or this node does not lead.
func (b *Broker) RaiseLevel() []meta.Op {
	_, heard := b.meta.leader()
	if heard == nil {
		return nil
	}
	view := b.View()
	// Also those that are about to become members.
	low := heard.level(append(b.lane.Peers(), b.lane.Self())...)
	for _, n := range view.Nodes() {
		low = min(low, heard.level(n.ID))
	}
	if low <= levelOf(view) {
		return nil
	}
	return []meta.Op{meta.SettingPut{Name: levelSetting, Value: strconv.Itoa(low)}}
}

// level is the lowest of those that nodes have told this leader, 0 if one has
// not, or cannot be reached.
func (v *visibility) level(nodes ...mq.NodeID) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	low := Level
	for _, n := range nodes {
		low = min(low, v.levels[n])
	}
	return low
}

// checkLevel ends a node that does not know what the cluster uses.
func (b *Broker) checkLevel() {
	if n := levelOf(b.View()); n > b.level {
		b.fatal(fmt.Errorf("the cluster uses feature level %d, and this build knows only %d: start a newer one here", n, b.level))
	}
}
