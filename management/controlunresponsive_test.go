package management

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"warren/fsm/meta"
	"warren/mq"
)

// declareIn makes a queue in a group.
func (n *node) declareIn(name string, group mq.GroupID) {
	n.states()
	n.apply(meta.QueueDeclare{VHost: "/", Name: name, Durable: true, Group: group})
}

func unresponsive(t *testing.T, n *node, args ...string) (names []string) {
	t.Helper()
	for _, r := range n.do(t, "list_unresponsive_queues", args...).Rows {
		names = append(names, fmt.Sprint(r["name"], " in ", r["pid"]))
	}
	return names
}

func TestQueuesOfAGroupWithoutALeaderAreUnresponsive(t *testing.T) {
	n := &node{secret: "s"}
	n.declareIn("q", 1)
	if got := unresponsive(t, n); len(got) != 0 {
		t.Errorf("all leaders answer, and %q are unresponsive", got)
	}
	n.apply(meta.GroupSet{ID: 2, Replicas: []mq.NodeID{"b2"}})
	n.declareIn("lost", 2) // whose leader the fake does not know
	n.declareIn("lost too", 2)
	if got, want := unresponsive(t, n), []string{"lost in group 2", "lost too in group 2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	n.stats.NodeID = "a1"
	if got := unresponsive(t, n, "--local=true"); len(got) != 0 {
		t.Errorf("group 2 is not on this node, and %q are unresponsive here", got)
	}
	n.stats.NodeID = "b2"
	if got := unresponsive(t, n, "--local=true"); len(got) != 2 {
		t.Errorf("group 2 is on this node, and only %q are unresponsive here", got)
	}
}

func TestALeaderThatHangsIsNotWaitedForLongerThanToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{secret: "s"}
		n.declareIn("hung", 1) // the fake answers when nobody waits any more
		if got, want := unresponsive(t, n, "--queue-timeout=2"), []string{"hung in group 1"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAQueueThatIsDeletedMeanwhileIsNotUnresponsive(t *testing.T) {
	n := &node{secret: "s"}
	n.declareIn("lost", 1)
	n.declareIn("q", 1)
	n.asking = func(q *meta.Queue) {
		if q.Name == "lost" {
			n.apply(meta.QueueDelete{VHost: "/", Name: "lost"})
		}
	}
	if got := unresponsive(t, n); len(got) != 0 {
		t.Errorf("%q are unresponsive, and the leader told of the queue that is left", got)
	}
}

func TestQueueTimeoutIsSecondsThatACommandHas(t *testing.T) {
	n := &node{secret: "s"}
	n.states()
	for _, s := range []string{"0", "-1", "21", "x", "99999999999999999999"} {
		if code, body := n.ask(t, "Bearer s", commandOf("list_unresponsive_queues", "--queue-timeout="+s)); code != 400 {
			t.Errorf("--queue-timeout %s: %d %s", s, code, body)
		}
	}
	if code, body := n.ask(t, "Bearer s", commandOf("list_unresponsive_queues", "-p nope")); code != 400 {
		t.Errorf("a vhost that is not there: %d %s", code, body)
	}
}
