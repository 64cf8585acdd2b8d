package management

import (
	"os"
	"slices"
	"testing"

	"warren/fsm/meta"
)

func TestANodeIsStoppedBeforeItHasACluster(t *testing.T) {
	n := &node{secret: "s", state: meta.New(), stats: Stats{Node: "node1"}}
	if code, body := n.ask(t, "Bearer s", commandOf("environment")); code != 503 {
		t.Fatalf("the cluster is not formed, and a command is answered %d %s", code, body)
	}
	for _, verb := range []string{"stop", "shutdown"} {
		n.deeds = nil
		r := n.do(t, verb)
		if !slices.Equal(n.deeds, []string{"stop"}) || r.Rows[0]["node"] != "node1" || r.Rows[0]["pid"] != float64(os.Getpid()) {
			t.Errorf("%s does %q and answers %v", verb, n.deeds, r)
		}
	}
	n.deeds = nil
	if code, _ := n.ask(t, "Bearer x", commandOf("stop")); code != 401 || len(n.deeds) > 0 {
		t.Errorf("with another secret: %d, did %q", code, n.deeds)
	}
}

func TestTheEnvironmentIsShownInItsOrder(t *testing.T) {
	n := &node{secret: "s"}
	n.states()
	rows := n.do(t, "environment").Rows
	if len(rows) != 2 || rows[0]["key"] != "node_name" || rows[0]["value"] != "node1" || rows[1]["key"] != "heartbeat" {
		t.Errorf("got %v", rows)
	}
}
