package management

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

const (
	// unresponsiveWait is how long a leader has to answer unless --queue-timeout
	// says otherwise, as in RabbitMQ; at most unresponsiveWaitMax, which leaves
	// time to answer the command itself.
	unresponsiveWait    = 15 * time.Second
	unresponsiveWaitMax = 20 * time.Second
	// groupAskersMax is how many groups are asked at once.
	groupAskersMax = 64
)

// listUnresponsiveQueues lists the queues whose group has no leader, or one
// that does not answer in time. One shard answers for all queues of a group, so
// each group is asked about one of them only.
func (c *command) listUnresponsiveQueues(ctx context.Context) (r ControlReply, err error) {
	if err := c.mustHaveVHost(); err != nil {
		return r, err
	}
	wait := unresponsiveWait
	if s := c.Options["queue-timeout"]; s != "" {
		seconds, err := strconv.Atoi(s)
		wait = time.Duration(seconds) * time.Second
		if err != nil || seconds < 1 || wait > unresponsiveWaitMax {
			return r, refused(ExitUsage, "--queue-timeout must be a whole number of seconds from 1 to %d", unresponsiveWaitMax/time.Second)
		}
	}
	groups := c.byGroup(c.Options["local"] != "")
	silent := c.silent(ctx, groups, wait)
	now := c.server.source.View()
	for _, queues := range silent {
		for _, q := range queues {
			if isThere(now, q) {
				row := queueRow(q)
				row["pid"] = c.keptBy(q.Group)
				r.Rows = append(r.Rows, row)
			}
		}
	}
	slices.SortFunc(r.Rows, func(a, b Row) int { return strings.Compare(a["name"].(string), b["name"].(string)) })
	return r, ctx.Err()
}

// byGroup are the queues of the vhost by their groups; with local of those
// groups only that this node keeps.
func (c *command) byGroup(local bool) map[mq.GroupID][]*meta.Queue {
	out := map[mq.GroupID][]*meta.Queue{}
	self := mq.NodeID(c.server.source.Stats().NodeID)
	for q := range c.view.EachQueue(c.VHost) {
		if !local || slices.Contains(c.keepers(q.Group), self) {
			out[q.Group] = append(out[q.Group], q)
		}
	}
	return out
}

// keepers are the nodes that keep a group.
func (c *command) keepers(g mq.GroupID) []mq.NodeID {
	if session, local := g.Local(); local {
		if id, ok := c.view.SessionNode(session); ok {
			return []mq.NodeID{id}
		}
		return nil
	}
	if rec := c.view.Group(g); rec != nil {
		return rec.Replicas
	}
	return nil
}

// keptBy is what stands in place of a queue's Erlang process: its group, or the
// node whose memory it is in.
func (c *command) keptBy(g mq.GroupID) string {
	if _, local := g.Local(); !local {
		return "group " + strconv.FormatUint(uint64(g), 10)
	}
	for _, id := range c.keepers(g) {
		if n := c.view.NodeByID(id); n != nil {
			return n.Name
		}
	}
	return ""
}

// silent asks all groups and returns the queues of those that did not answer.
func (c *command) silent(ctx context.Context, groups map[mq.GroupID][]*meta.Queue, wait time.Duration) (out [][]*meta.Queue) {
	var mu sync.Mutex // guards out
	var asking sync.WaitGroup
	places := make(chan struct{}, groupAskersMax)
	for _, queues := range groups {
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			if !c.answers(ctx, queues) {
				mu.Lock()
				out = append(out, queues)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return out
}

// answers reports whether the leader of these queues, which are of one group,
// tells of one. No leader tells of a queue that was deleted meanwhile.
func (c *command) answers(ctx context.Context, queues []*meta.Queue) bool {
	for _, q := range queues {
		if c.server.source.QueueStatus(ctx, q).Ready >= 0 {
			return true
		}
		if isThere(c.server.source.View(), q) {
			return false
		}
	}
	return true // nothing is left to list
}

// isThere reports whether a queue is there still, and is not another one of its
// name.
func isThere(v *meta.View, q *meta.Queue) bool {
	now := v.Queue(q.VHost, q.Name)
	return now != nil && now.ID == q.ID
}
