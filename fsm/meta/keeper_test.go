package meta

import (
	"bytes"
	"testing"

	"warren/mq"
)

func delayedDeclare(name string) ExchangeDeclareKeeping {
	return ExchangeDeclareKeeping{ExchangeDeclare: ExchangeDeclare{VHost: "/", Name: name, Type: "x-delayed-message", Durable: true}, Keeper: KeepsDelayed, Group: 1}
}

func TestAKeeperComesAndGoesWithItsExchange(t *testing.T) {
	l := newLog(t)
	l.must(delayedDeclare("later"))
	q := l.state.View().KeeperOf("/", "later")
	if q == nil || q.Keeper != KeepsDelayed || q.Group != 1 {
		t.Fatalf("keeper is %+v", q)
	}
	if v := l.state.View(); v.QueueByID(q.ID) != q || v.Queue("/", "later") != nil || v.QueueCount() != 0 {
		t.Error("a keeper is found by its id, and not by its name")
	}
	l.must(delayedDeclare("later"))
	if again := l.state.View().KeeperOf("/", "later"); again != q {
		t.Errorf("a second declaration made %+v", again)
	}
	_, changes := l.apply(ExchangeDelete{VHost: "/", Name: "later"})
	if len(changes) != 1 || changes[0] != (QueueDeleted{q}) || l.state.View().QueueByID(q.ID) != nil {
		t.Errorf("after its exchange was deleted: %v", changes)
	}
}

func TestAKeeperLeavesTheQueueOfItsNameAlone(t *testing.T) {
	l := newLog(t)
	l.must(delayedDeclare("orders"))
	l.must(fanout("x"))
	l.must(durable("orders"))
	l.must(Bind{toQueue("x", "orders")})
	l.must(ExchangeDelete{VHost: "/", Name: "orders"})
	if v := l.state.View(); v.Queue("/", "orders") == nil || !v.Bound(toQueue("x", "orders")) {
		t.Error("the client's queue, or its binding, went with the keeper of the same name")
	}
}

func TestKeepersGoWithTheirVHostAndTheirLastBinding(t *testing.T) {
	l := newLog(t)
	auto := delayedDeclare("auto")
	auto.AutoDelete = true
	l.must(auto)
	l.must(durable("q"))
	l.must(Bind{toQueue("auto", "q")})
	l.must(Unbind{toQueue("auto", "q")})
	if l.state.View().KeeperOf("/", "auto") != nil {
		t.Error("the keeper of an auto-deleted exchange is there")
	}
	l.must(delayedDeclare("later"))
	l.must(VHostDelete{Name: "/"})
	for q := range l.state.View().AllQueues() {
		t.Errorf("%s is there without its vhost", q.Name)
	}
}

// Without the bits of Keeper a keeper would come back as a client's queue.
func TestKeepersOutliveASnapshot(t *testing.T) {
	l := newLog(t)
	l.must(delayedDeclare("later"))
	recent := ExchangeDeclareKeeping{ExchangeDeclare: ExchangeDeclare{VHost: "/", Name: "news", Type: "x-recent-history"}, Keeper: KeepsRecent, Group: 1}
	l.must(recent)
	l.must(ExchangeDeclareKeeping{ExchangeDeclare: ExchangeDeclare{VHost: "/", Name: "once", Type: "x-message-deduplication"}, Keeper: KeepsSeen, Group: 1})
	l.must(durable("later"))
	raw := l.state.AppendTo(nil)
	s := New()
	if err := s.Restore(raw); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, s.AppendTo(nil)) {
		t.Error("restored state differs")
	}
	v := s.View()
	if q := v.KeeperOf("/", "later"); q == nil || q.Keeper != KeepsDelayed {
		t.Errorf("later is kept in %+v", q)
	}
	if q := v.KeeperOf("/", "news"); q == nil || q.Keeper != KeepsRecent {
		t.Errorf("news is kept in %+v", q)
	}
	if q := v.KeeperOf("/", "once"); q == nil || q.Keeper != KeepsSeen {
		t.Errorf("once is %+v", q)
	}
	if q := v.Queue("/", "later"); q == nil || q.Keeper != NoKeeper {
		t.Errorf("the queue is %+v", q)
	}
}

func TestAnUnknownKeeperIsRefused(t *testing.T) {
	op := delayedDeclare("later")
	op.Keeper = 9
	if _, err := ParseOps(AppendOps(nil, op)); err == nil {
		t.Error("no error")
	}
}

func TestAKeeperNeedsAGroup(t *testing.T) {
	l := newLog(t)
	op := delayedDeclare("later")
	op.Group = 99
	if r := l.do(op); r.Err == nil || r.Err.Code != mq.InternalError {
		t.Errorf("got %+v", r)
	}
	if l.state.View().Exchange("/", "later") != nil {
		t.Error("the exchange is there without its keeper")
	}
}
