package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"warren/mq"
)

// A replica that nobody else has stays as it is, whatever is wrong with it; the
// node says what can be done, and its other groups go on.
func TestADamagedReplicaThatNobodyElseHasIsLeftAlone(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.Groups = 2
	n := start(t, cfg).awaitReady()
	ch := n.channel()
	groups := map[mq.GroupID]string{} // a queue of each
	for _, name := range []string{"a", "b", "c", "d"} {
		declare(t, ch, name)
		groups[n.broker.View().Queue("/", name).Group] = name
		publish(t, ch, name, "the message of "+name)
	}
	if len(groups) != 2 {
		t.Fatalf("all queues are in the groups %v", groups)
	}
	bad, good := groups[1], groups[2]
	n.stop()
	flipText(t, filepath.Join(cfg.DataDir, "wal", "*.wal"), "the message of "+bad)

	for range 2 { // it is found again, because nothing was removed
		n = start(t, cfg)
		await(t, "the node says what is wrong", func() bool {
			err := n.Ready()
			return err != nil && strings.Contains(err.Error(), "group 1") && strings.Contains(err.Error(), "damaged") &&
				strings.Contains(err.Error(), "no other node") && strings.Contains(err.Error(), lostReplicas)
		})
		await(t, "the other group is led", func() bool {
			g := n.groups.get(2)
			if g == nil {
				return false
			}
			_, leads := g.Leading()
			return leads && n.serving.Load()
		})
		ch := n.channel()
		publish(t, ch, good, "more")
		if got := get(t, ch, good); got != "the message of "+good && got != "more" {
			t.Errorf("got %q", got)
		}
		damaged := false
		for _, g := range n.Stats().Groups {
			damaged = damaged || g.Group == 1 && g.Damaged
		}
		if !damaged || n.Stats().Rebuilds != 0 {
			t.Errorf("its figures are %+v", n.Stats().Groups)
		}
		n.stop()
	}
}

// flipText changes a byte wherever text is in the files that a pattern names.
func flipText(t *testing.T, pattern, text string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(text)) {
			continue
		}
		found = true
		b = bytes.ReplaceAll(b, []byte(text), append([]byte{text[0] ^ 1}, text[1:]...))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Fatalf("%q is in none of %v", text, names)
	}
}
