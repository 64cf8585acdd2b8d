package broker

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"warren/mq"
)

// spoil damages what a node has on disk of a group.
func (n *houseNode) spoil(t *testing.T, g mq.GroupID) {
	t.Helper()
	dir := fmt.Sprintf("/groups/%d/segments/", g)
	names, err := n.disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := n.disk.Edit(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(100); at < size; at += 1000 {
			if _, err := f.WriteAt([]byte{0xee}, at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestALetterThatDoesNotComeFromDiskHoldsUpItsOwnQueueOnly(t *testing.T) {
	h := newPagedHouse(t, 3, 2, tinyMemory)
	withDeadLetters(t, h)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "other", Durable: true, Args: args("x-dead-letter-exchange", "dlx")})
	if got := h.nodes[0].View().Queue("/", "other").Group; got != 1 {
		t.Fatalf("the other queue is in group %d", got)
	}
	s.backlog(t, "q", 2000)
	h.pagedOut(t, 1)
	h.nodes[0].spoil(t, 1)
	h.administer(policyOf("^q$", "max-length", int64(10)))
	eventually(t, "the damage to be noticed", func() bool { return h.nodes[0].Shard(1).Damaged() != nil })
	s.publishTo(t, "", "other", "of the other queue", 1)
	eventually(t, "its letter", func() bool { return s.ready(t, "dead") == 1 })
	if d := s.mustGet(t, "dead"); string(d.Content.Body()) != "of the other queue" {
		t.Errorf("got %q", d.Content.Body())
	}
}

func TestMessagesThatAreDueHereAndThereInADeepQueueComeFromDiskByThemselves(t *testing.T) {
	h := newPagedHouse(t, 3, 2, tinyMemory)
	withDelays(t, h)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "free", Durable: true})
	const count = 500
	order := rand.New(rand.NewPCG(3, 4)).Perm(count)
	due := h.nodes[0].nowMs() + 1500
	for i := range count {
		delay := due + int64(order[i]) - h.nodes[0].nowMs()
		s.publishWith(t, "later", "k", fmt.Sprint(i), args(delayHeader, max(1, delay)))
	}
	s.backlog(t, "free", 2000)
	eventually(t, "all that is due", func() bool { return s.ready(t, "q") == count })
	seen := map[string]bool{}
	for _, b := range s.bodies(t, "q") {
		seen[b] = true
	}
	if len(seen) != count {
		t.Errorf("%d of %d messages came", len(seen), count)
	}
}
