package management

import (
	"errors"
	"os"
	"slices"
	"strings"
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

func TestTheLevelOfTheLogIsAnyOfRabbitMQs(t *testing.T) {
	n := &node{secret: "s", state: meta.New()} // also while there is no cluster
	for _, level := range []string{"debug", "info", "notice", "warning", "error", "critical"} {
		n.do(t, "set_log_level", level)
	}
	if want := []string{"log DEBUG", "log INFO", "log WARN", "log WARN", "log ERROR", "log ERROR"}; !slices.Equal(n.deeds, want) {
		t.Errorf("did %q, want %q", n.deeds, want)
	}
	n.do(t, "set_log_level", "none")
	if code, body := n.ask(t, "Bearer s", commandOf("set_log_level", "loud")); code != 400 || !strings.Contains(body, "level loud is not supported. Try one of debug, info, warning, error, none") {
		t.Errorf("a level that is none: %d %s", code, body)
	}
	n.err = errors.New("it stays")
	if code, body := n.ask(t, "Bearer s", commandOf("set_log_level", "info")); code != 503 || !strings.Contains(body, "it stays") {
		t.Errorf("a log whose level stays: %d %s", code, body)
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
