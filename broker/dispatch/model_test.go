package dispatch

import (
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

// model is the slow definition of a Queue, and drives one beside it.
type model struct {
	q         *Queue
	single    bool
	live      *liveSet
	ranks     int // 1 for a queue without priorities
	rank      map[mq.Seq]uint8
	opened    mq.Seq
	held      map[mq.Seq]*modelHeld
	deferred  map[mq.Seq]bool
	handed    map[mq.Seq]bool // handed out by this leader, or claimed
	fresh     map[mq.Seq]bool // handed out with redelivered=false
	highest   mq.Seq          // of fresh
	consumers map[Key]*modelConsumer
	turns     []Key // able ones, in turn
	suspended map[mq.SessionID]bool
	attaches  int
	timed     bool // somebody has called Time
	now       uint32
	patience  map[Key]uint32 // of whoever is attached or holds something
}

type modelHeld struct {
	k        Key
	settling bool
	since    uint32
}

type modelConsumer struct {
	Consumer
	messages, bytes, age int
}

// modelUsual is the usual rank of a model with several.
const modelUsual = 2

func newModel(single bool, ranks int) *model {
	m := &model{
		single: single, live: messages(0), ranks: ranks, rank: map[mq.Seq]uint8{},
		held: map[mq.Seq]*modelHeld{}, deferred: map[mq.Seq]bool{}, handed: map[mq.Seq]bool{}, fresh: map[mq.Seq]bool{},
		consumers: map[Key]*modelConsumer{}, suspended: map[mq.SessionID]bool{}, patience: map[Key]uint32{},
	}
	m.q = m.begin()
	return m
}

// begin makes the dispatcher of a leader that begins.
func (m *model) begin() *Queue {
	if m.ranks == 1 {
		return New(m.single)
	}
	q := NewRanked(m.single, Ranks{N: m.ranks, Usual: modelUsual, Of: func(seq mq.Seq) uint8 { return m.rank[seq] }})
	for seq := mq.Seq(1); seq <= m.live.last; seq++ {
		if !m.live.gone[seq] {
			q.Enqueued(seq, m.rank[seq])
		}
	}
	return q
}

// newLeader is another leader's beginning, which knows nothing but what is in
// the queue and the delivered high-water mark.
func (m *model) newLeader(mark mq.Seq) {
	m.q, m.opened = m.begin(), mark
	m.q.OpenAt(mark)
	clear(m.held)
	clear(m.deferred)
	clear(m.handed)
	clear(m.consumers)
	clear(m.suspended)
	clear(m.patience)
	m.turns, m.timed, m.now = nil, false, 0
}

func (m *model) able(k Key) bool {
	c := m.consumers[k]
	if c == nil || m.suspended[k.Session] || c.messages <= 0 || c.bytes <= 0 {
		return false
	}
	unsettled := 0
	for _, h := range m.held {
		if h.k == k && !h.settling {
			unsettled++
		}
	}
	return c.NoAck || c.Prefetch == 0 || unsettled < int(c.Prefetch)
}

// refresh keeps turns: who is able again goes to the end.
func (m *model) refresh() {
	m.turns = slices.DeleteFunc(m.turns, func(k Key) bool { return !m.able(k) })
	ks := slices.SortedFunc(maps.Keys(m.consumers), func(a, b Key) int { return m.consumers[a].age - m.consumers[b].age })
	for _, k := range ks {
		if m.able(k) && !slices.Contains(m.turns, k) {
			m.turns = append(m.turns, k)
		}
	}
	maps.DeleteFunc(m.patience, func(k Key, _ uint32) bool { return m.consumers[k] == nil && !m.holds(k) })
}

func (m *model) holds(k Key) bool {
	for _, h := range m.held {
		if h.k == k {
			return true
		}
	}
	return false
}

// takeBack says what TakeBack must do, and does it.
func (m *model) takeBack() (taken []mq.Seq, next uint32, waits bool) {
	for _, seq := range slices.Sorted(maps.Keys(m.held)) {
		h := m.held[seq]
		if h.settling || m.patience[h.k] == 0 || !m.timed {
			continue
		}
		due := h.since + m.patience[h.k] + 1
		if due <= m.now && !m.suspended[h.k.Session] {
			taken = append(taken, seq)
			delete(m.held, seq)
			continue
		}
		due = max(due, m.now+1)
		if !waits || due < next {
			next, waits = due, true
		}
	}
	m.refresh()
	return taken, next, waits
}

func (m *model) ready() (mq.Seq, bool) { return m.readyFrom(0) }

// readyFrom is what comes first of the ranks at or after from.
func (m *model) readyFrom(from int) (first mq.Seq, any bool) {
	for seq := mq.Seq(1); seq <= m.live.last; seq++ {
		if !m.live.gone[seq] && m.held[seq] == nil && !m.deferred[seq] && int(m.rank[seq]) >= from && (!any || m.rank[seq] < m.rank[first]) {
			first, any = seq, true
		}
	}
	return first, any
}

func (m *model) next(t *rapid.T, limit mq.Seq) {
	top := int32(-1 << 31)
	for _, k := range m.turns {
		top = max(top, m.consumers[k].Priority)
	}
	may := slices.DeleteFunc(slices.Clone(m.turns), func(k Key) bool {
		if !m.single {
			return m.consumers[k].Priority != top
		}
		a, ok := m.q.Active()
		for _, h := range m.held {
			_, consumes := m.consumers[h.k]
			ok = ok && (h.k == a || !consumes)
		}
		return !ok || k != a
	})
	want, any := m.ready()
	any = any && len(may) > 0 && (m.handed[want] || want <= limit)
	seq, k, noAck, redelivered, ok := m.q.Next(m.live, limit)
	if ok != any {
		t.Fatalf("Next says %v (%d to %v), want %v (%d)", ok, seq, k, any, want)
	}
	if !ok {
		return
	}
	if seq != want || !slices.Contains(may, k) || noAck != m.consumers[k].NoAck {
		t.Fatalf("got %d for %v, want %d for one of %v", seq, k, want, may)
	}
	m.checkOut(t, seq, k, noAck, redelivered)
	m.consumers[k].messages--
	bytes := rapid.SampledFrom([]int{0, 100, 3 << 20}).Draw(t, "bytes")
	m.q.Sent(k, bytes)
	m.consumers[k].bytes -= bytes
	i := slices.Index(m.turns, k)
	m.turns = append(slices.Delete(m.turns, i, i+1), k)
	m.refresh()
}

func (m *model) checkOut(t *rapid.T, seq mq.Seq, k Key, noAck, redelivered bool) {
	if want := m.handed[seq] || seq <= m.opened; redelivered != want {
		t.Fatalf("%d: redelivered is %v", seq, redelivered)
	}
	if !redelivered {
		if m.fresh[seq] || seq < m.highest && m.ranks == 1 {
			t.Fatalf("%d is handed out as fresh after %d", seq, m.highest)
		}
		m.fresh[seq], m.highest = true, seq
	}
	m.handed[seq] = true
	m.held[seq] = &modelHeld{k, noAck, m.now}
}

func (m *model) withdraw(seq mq.Seq) {
	m.held[seq] = &modelHeld{leaderKey(), true, m.now}
	delete(m.deferred, seq)
	m.refresh()
}

func (m *model) requeue(k Key, settling bool) {
	maps.DeleteFunc(m.held, func(_ mq.Seq, h *modelHeld) bool { return h.k == k && (settling || !h.settling) })
}

// check holds the queue against the model.
func (m *model) check(t *rapid.T) {
	want := slices.Sorted(maps.Keys(m.held))
	leaving := 0
	m.q.out.each(0, math.MaxUint64, func(_ mq.Seq, s slot) bool {
		if i, held := s.held(); held && s&settling != 0 && m.q.holders[i].Key != leaderKey() {
			leaving++
		}
		return true
	})
	if got := m.q.Leaving(); got != leaving {
		t.Fatalf("%d are leaving, want %d", got, leaving)
	}
	if got := m.q.HeldSeqs(); !slices.Equal(got, want) || m.q.Unacked() != len(want) {
		t.Fatalf("checked out: %v (%d), want %v", got, m.q.Unacked(), want)
	}
	for seq := range m.live.last + 2 {
		if m.q.Held(seq) != (m.held[seq] != nil) || m.q.IsDeferred(seq) != m.deferred[seq] {
			t.Fatalf("Held(%d) or IsDeferred is wrong", seq)
		}
	}
	if m.q.Deferred() != len(m.deferred) {
		t.Fatalf("%d deferred, want %d", m.q.Deferred(), len(m.deferred))
	}
	if m.q.Consumers() != len(m.consumers) {
		t.Fatalf("%d consumers, want %d", m.q.Consumers(), len(m.consumers))
	}
	withdrawn := 0
	for _, h := range m.held {
		if h.k == leaderKey() {
			withdrawn++
		}
	}
	if m.q.Withdrawn() != withdrawn {
		t.Fatalf("%d withdrawn, want %d", m.q.Withdrawn(), withdrawn)
	}
	if a, ok := m.q.Active(); m.single {
		if ok != (len(m.consumers) > 0) {
			t.Fatalf("active: %v of %d", ok, len(m.consumers))
		}
		for _, c := range m.consumers {
			if c.Priority > m.consumers[a].Priority {
				t.Fatalf("%v is active beside %v", a, c)
			}
		}
	}
	holders := map[Key]bool{}
	for _, h := range m.held {
		holders[h.k] = true
	}
	for k := range m.consumers {
		holders[k] = true
	}
	if len(m.q.byKey) != len(holders) || m.q.nReturned > m.q.heaped {
		t.Fatalf("%d holders, want %d; %d returned, in heaps %d", len(m.q.byKey), len(holders), m.q.nReturned, m.q.heaped)
	}
	if first, any := m.ready(); any && m.q.sorted() && first > m.q.WantReserve() {
		t.Fatalf("%d comes next, and the mark is wanted at %d", first, m.q.WantReserve())
	}
}

func TestQueueAgreesWithTheModel(t *testing.T) { agreesWithTheModel(t, 1) }

func TestQueueOfSeveralRanksAgreesWithTheModel(t *testing.T) {
	for _, ranks := range []int{3, 5, 70, RanksMax} {
		agreesWithTheModel(t, ranks)
	}
}

func agreesWithTheModel(t *testing.T, ranks int) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(rapid.Bool().Draw(t, "single active"), ranks)
		m.opened = mq.Seq(rapid.IntRange(0, 20).Draw(t, "opened"))
		m.q.OpenAt(m.opened)
		limit := mq.Seq(20)
		k := rapid.Custom(func(t *rapid.T) Key {
			return key(rapid.IntRange(1, 2).Draw(t, "session"), rapid.IntRange(0, 2).Draw(t, "consumer"))
		})
		seq := rapid.Custom(func(t *rapid.T) mq.Seq { return mq.Seq(rapid.IntRange(1, int(m.live.last)+1).Draw(t, "seq")) })
		some := rapid.SliceOfN(seq, 0, 8)
		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"publish": func(t *rapid.T) {
				rank := rapid.SampledFrom([]int{modelUsual, modelUsual, 0, 1, m.ranks - 1})
				for range rapid.IntRange(1, 30).Draw(t, "n") {
					m.live.last++
					if m.ranks > 1 {
						m.rank[m.live.last] = uint8(rank.Draw(t, "rank"))
						m.q.Enqueued(m.live.last, m.rank[m.live.last])
					}
				}
				limit = max(limit, min(m.live.last, limit+mq.Seq(rapid.IntRange(0, 40).Draw(t, "reserved"))))
			},
			"next":    func(t *rapid.T) { m.next(t, limit) },
			"next 20": func(t *rapid.T) { times(20, func() { m.next(t, limit) }) },
			"take": func(t *rapid.T) {
				k, noAck := k.Draw(t, "key"), rapid.Bool().Draw(t, "no ack")
				want, any := m.ready()
				any = any && (m.handed[want] || want <= limit)
				seq, redelivered, ok := m.q.Take(m.live, limit, k, noAck)
				if ok != any || ok && seq != want {
					t.Fatalf("Take says %d %v, want %d %v", seq, ok, want, any)
				}
				if ok {
					m.checkOut(t, seq, k, noAck, redelivered)
					m.refresh()
				}
			},
			"withdraw first": func(t *rapid.T) {
				want, any := m.ready()
				seq, ok := m.q.First(m.live)
				if ok != any || ok && seq != want {
					t.Fatalf("First says %d %v, want %d %v", seq, ok, want, any)
				}
				if ok && rapid.Bool().Draw(t, "withdraw") {
					m.q.Withdraw(seq)
					m.withdraw(seq)
				}
			},
			"withdraw first of each rank": func(t *rapid.T) {
				for from := 0; ; {
					want, any := m.readyFrom(from)
					seq, rank, ok := m.q.FirstFrom(m.live, from)
					if ok != any || ok && (seq != want || rank != int(m.rank[seq])) {
						t.Fatalf("from %d, FirstFrom says %d of rank %d %v, want %d %v", from, seq, rank, ok, want, any)
					}
					if !ok {
						break
					}
					from = rank + 1
					if rapid.Bool().Draw(t, "withdraw") {
						m.q.Withdraw(seq)
						m.withdraw(seq)
						from = rank
					}
				}
			},
			"trim":          func(*rapid.T) { m.q.Trim(m.live) },
			"another leads": func(t *rapid.T) { m.newLeader(limit) },
			"withdraw held": func(t *rapid.T) {
				k, seqs := k.Draw(t, "key"), some.Draw(t, "seqs")
				var got []mq.Seq
				m.q.WithdrawFrom(k, seqs, func(seq mq.Seq) { got = append(got, seq) })
				var want []mq.Seq
				for _, seq := range seqs {
					if h := m.held[seq]; h != nil && h.k == k && !h.settling {
						want = append(want, seq)
						m.withdraw(seq)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("withdrew %v, want %v", got, want)
				}
			},
			"defer": func(t *rapid.T) {
				for _, seq := range some.Draw(t, "seqs") {
					h := m.held[seq]
					if m.live.gone[seq] || seq > m.live.last {
						continue
					}
					m.q.Defer(seq)
					if h == nil || h.k == leaderKey() {
						delete(m.held, seq)
						m.deferred[seq], m.handed[seq] = true, true
					}
				}
				m.refresh()
			},
			"restore": func(t *rapid.T) {
				for _, seq := range some.Draw(t, "seqs") {
					m.q.Restore(seq)
					delete(m.deferred, seq)
					if h := m.held[seq]; h != nil && h.k == leaderKey() {
						delete(m.held, seq)
						m.handed[seq] = true
					}
				}
				m.refresh()
			},
			"attach": func(t *rapid.T) {
				c := Consumer{Key: k.Draw(t, "key"), Prefetch: uint32(rapid.IntRange(0, 4).Draw(t, "prefetch")),
					NoAck: rapid.Bool().Draw(t, "no ack"), Priority: int32(rapid.IntRange(-1, 1).Draw(t, "priority")),
					Patience: rapid.SampledFrom([]uint32{0, 1, 10}).Draw(t, "patience")}
				attach(t, m.q, c)
				// Attaching again asks for a turn anew, too.
				m.turns = slices.DeleteFunc(m.turns, func(k Key) bool { return k == c.Key })
				age := m.attaches
				if old := m.consumers[c.Key]; old != nil {
					age = old.age
				}
				m.attaches++
				m.consumers[c.Key] = &modelConsumer{c, LinkMessages, LinkBytes, age}
				m.patience[c.Key] = c.Patience
				m.refresh()
			},
			"resize": func(t *rapid.T) {
				k, prefetch := k.Draw(t, "key"), uint32(rapid.IntRange(0, 4).Draw(t, "prefetch"))
				m.q.Resize(k, prefetch)
				if c := m.consumers[k]; c != nil {
					c.Prefetch = prefetch
				}
				m.turns = slices.DeleteFunc(m.turns, func(k Key) bool { return !m.able(k) })
				m.refresh()
			},
			"detach": func(t *rapid.T) {
				k, requeue := k.Draw(t, "key"), rapid.Bool().Draw(t, "requeue")
				if got, want := m.q.Detach(k, requeue), m.consumers[k] != nil; got != want {
					t.Fatalf("Detach says %v", got)
				}
				delete(m.consumers, k)
				if requeue {
					m.requeue(k, false)
				}
				m.refresh()
			},
			"drop session": func(t *rapid.T) {
				s := mq.SessionID(rapid.IntRange(1, 2).Draw(t, "session"))
				m.q.DropSession(s)
				delete(m.suspended, s)
				for c := range 3 {
					delete(m.consumers, key(int(s), c))
					m.requeue(key(int(s), c), true)
				}
				m.refresh()
			},
			"time passes": func(t *rapid.T) {
				m.now += uint32(rapid.IntRange(1, 5).Draw(t, "time"))
				m.q.Time(m.now)
				if !m.timed {
					m.timed = true
					for _, h := range m.held {
						h.since = m.now
					}
				}
			},
			"take back": func(t *rapid.T) {
				var got []mq.Seq
				holders := map[mq.Seq]Key{}
				for seq, h := range m.held {
					holders[seq] = h.k
				}
				next, waits := m.q.TakeBack(func(k Key, seq mq.Seq) {
					if holders[seq] != k {
						t.Fatalf("%d was taken back from %v", seq, k)
					}
					got = append(got, seq)
				})
				want, wantNext, wantWaits := m.takeBack()
				if !slices.Equal(got, want) || next != wantNext || waits != wantWaits {
					t.Fatalf("took back %v (next %d, %v), want %v (%d, %v)", got, next, waits, want, wantNext, wantWaits)
				}
			},
			"suspend": func(t *rapid.T) {
				s, on := mq.SessionID(rapid.IntRange(1, 2).Draw(t, "session")), rapid.Bool().Draw(t, "on")
				m.q.Suspend(s, on)
				m.suspended[s] = on
				m.turns = slices.DeleteFunc(m.turns, func(k Key) bool { return !m.able(k) })
				m.refresh()
			},
			"link": func(t *rapid.T) {
				k, bytes := k.Draw(t, "key"), rapid.IntRange(0, 9<<20).Draw(t, "bytes")
				m.q.Link(k, 1, bytes)
				if c := m.consumers[k]; c != nil {
					c.messages, c.bytes = min(LinkMessages, c.messages+1), min(LinkBytes, c.bytes+bytes)
				}
				m.refresh()
			},
			"settling": func(t *rapid.T) {
				for _, seq := range some.Draw(t, "seqs") {
					m.q.Settling(seq)
					if h := m.held[seq]; h != nil {
						h.settling = true
					}
					m.refresh()
				}
			},
			"settled": func(t *rapid.T) {
				first := seq.Draw(t, "first")
				last := min(m.live.last, first+mq.Seq(rapid.SampledFrom([]int{0, 0, 3, 50}).Draw(t, "span")))
				if first > last {
					return
				}
				told := rapid.IntRange(0, 9).Draw(t, "told") > 0
				for seq := first; seq <= last; seq++ {
					if told || m.held[seq] == nil { // what is not held may go before it is told
						m.live.gone[seq] = true
					}
				}
				if told {
					m.q.Settled(first, last)
					maps.DeleteFunc(m.held, func(seq mq.Seq, _ *modelHeld) bool { return seq >= first && seq <= last })
					maps.DeleteFunc(m.deferred, func(seq mq.Seq, _ bool) bool { return seq >= first && seq <= last })
				}
				m.refresh()
			},
			"return": func(t *rapid.T) {
				k, seqs := k.Draw(t, "key"), some.Draw(t, "seqs")
				for _, seq := range seqs {
					m.q.Return(k, []mq.Seq{seq})
					if h := m.held[seq]; h != nil && h.k == k {
						delete(m.held, seq)
					}
					m.refresh()
				}
			},
			"claim": func(t *rapid.T) {
				k, seqs := k.Draw(t, "key"), some.Draw(t, "seqs")
				want := 0
				for _, seq := range seqs {
					h := m.held[seq]
					if h == nil && seq <= m.live.last && !m.live.gone[seq] {
						c := m.consumers[k]
						h = &modelHeld{k, c != nil && c.NoAck, m.now}
						m.held[seq], m.handed[seq] = h, true
						delete(m.deferred, seq)
					}
					if h != nil && h.k == k {
						want++
					}
				}
				if got := m.q.Claim(k, seqs, m.live); got != want {
					t.Fatalf("claimed %d, want %d", got, want)
				}
				m.refresh()
			},
			"reconcile": func(t *rapid.T) {
				k, seqs := k.Draw(t, "key"), some.Draw(t, "seqs")
				m.q.Reconcile(k, seqs)
				maps.DeleteFunc(m.held, func(seq mq.Seq, h *modelHeld) bool {
					return h.k == k && !h.settling && !slices.Contains(seqs, seq)
				})
				m.refresh()
			},
		})
	})
}

func times(n int, f func()) {
	for range n {
		f()
	}
}

func TestTurnsAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		consumers := rapid.IntRange(1, 9).Draw(t, "consumers")
		n := rapid.IntRange(0, 200).Draw(t, "messages")
		q, l := New(false), messages(n)
		for i := range consumers {
			attach(t, q, Consumer{Key: key(1+i%2, i)})
		}
		had := map[Key]int{}
		for i, g := range drain(q, l, everything) {
			if g.seq != mq.Seq(i+1) || g.redelivered {
				t.Fatalf("message %d is %v", i, g)
			}
			had[g.k]++
		}
		least, most := n, 0
		for i := range consumers {
			c := had[key(1+i%2, i)]
			least, most = min(least, c), max(most, c)
		}
		if most-least > 1 {
			t.Fatalf("one had %d, another %d", most, least)
		}
	})
}

func TestOutstandingIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o outstanding
		want := map[mq.Seq]slot{}
		near := mq.Seq(1)
		seq := rapid.Custom(func(t *rapid.T) mq.Seq {
			if len(want) > 0 && rapid.Bool().Draw(t, "known") {
				return rapid.SampledFrom(slices.Sorted(maps.Keys(want))).Draw(t, "seq")
			}
			near += mq.Seq(rapid.SampledFrom([]int{0, 1, 1, 1, 30, 5000, slotsMax, 10 * slotsMax}).Draw(t, "step"))
			return near - min(near, mq.Seq(rapid.IntRange(0, 40).Draw(t, "back")))
		})
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			at := seq.Draw(t, "seq")
			s := rapid.SampledFrom([]slot{none, none, returned, holders, holders + 1, holders | settling}).Draw(t, "slot")
			o.set(at, s)
			want[at] = s
			if s == none {
				delete(want, at)
			}
			if o.get(at) != s {
				t.Fatalf("%d: got %d, want %d", at, o.get(at), s)
			}
		}
		first := seq.Draw(t, "first")
		drop := rapid.Bool().Draw(t, "drop")
		var got []mq.Seq
		o.each(first, near, func(seq mq.Seq, s slot) bool {
			if s != want[seq] {
				t.Fatalf("%d: got %d, want %d", seq, s, want[seq])
			}
			got = append(got, seq)
			if drop {
				o.set(seq, none)
			}
			return true
		})
		var all []mq.Seq
		for _, seq := range slices.Sorted(maps.Keys(want)) {
			if seq >= first && seq <= near {
				all = append(all, seq)
			}
			if s := o.get(seq); s != want[seq] && !(drop && seq >= first && s == none) {
				t.Fatalf("%d: got %d, want %d", seq, s, want[seq])
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("walked %v, want %v", got, all)
		}
		if len(o.ring) > slotsMax {
			t.Fatalf("ring of %d", len(o.ring))
		}
	})
}
