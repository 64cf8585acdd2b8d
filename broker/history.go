package broker

import (
	"context"
	"slices"
	"strconv"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
	"warren/storage/segment"
)

// An exchange of type x-recent-history is a fanout that keeps copies of its
// latest messages, and gives them to whatever is bound to it anew.
const (
	historyLength  = "x-recent-history-length"
	historyNoStore = "x-recent-history-no-store"
	// historyDefault is how many messages are kept if the exchange does not say.
	historyDefault = 20
	// historyBytesMax is how much of its history an exchange gives to what is
	// bound to it: of more, the latest.
	historyBytesMax = 16 << 20
)

// storesNothing reports whether a message asks not to be kept.
func storesNothing(headers mq.Table) bool {
	v, _ := headers.Get(historyNoStore)
	no, _ := v.(bool)
	return no
}

// forgetOld drops what is more than an exchange keeps. Runs with mu held.
func (s *Shard) forgetOld(q *ledQueue, st *queue.Queue) {
	keep := int64(historyDefault)
	if x := s.topics.View().Exchange(q.rec.VHost, q.rec.Name); x != nil {
		if n, ok := x.Args.Int(historyLength); ok {
			keep = n
		}
	}
	for int64(st.Count())-int64(q.d.Unacked()) > keep && q.d.Withdrawn() < withdrawnMax {
		seq, ok := q.d.First(st)
		if !ok {
			return
		}
		q.d.Withdraw(seq)
		q.drop(seq)
	}
}

// listRecent answers with the latest messages, oldest first.
func (s *Shard) listRecent(a asked, rec *meta.Queue) {
	st := s.state.Queue(rec.ID)
	if st == nil {
		a.ok(nil)
		return
	}
	q := s.queue(rec)
	var seqs []mq.Seq
	for seq, ok := st.Next(1); ok; seq, ok = st.Next(seq + 1) {
		if !q.d.Held(seq) {
			seqs = append(seqs, seq)
		}
	}
	slices.Reverse(seqs)
	var recent []segment.Record // the latest first
	size := 0
	s.list(q, a, func() bool {
		for ; len(seqs) > 0 && size <= historyBytesMax; seqs = seqs[1:] {
			if !s.bodies.Here(uint64(q.id), uint64(seqs[0])) {
				return false
			}
			if r, ok := s.bodies.Get(uint64(q.id), uint64(seqs[0])); ok { // not gone meanwhile
				if size += len(r.Body); size <= historyBytesMax {
					recent = append(recent, r)
				}
			}
		}
		out := make([]byte, 0, min(size, historyBytesMax)+len(recent)*16)
		for _, r := range slices.Backward(recent) {
			out = fields.AppendBytes(append(out, r.Flags, r.Priority), r.Body)
		}
		a.ok(out)
		return true
	})
}

// replay publishes the latest messages of an exchange to what has just been
// bound to it, and returns when they have arrived.
func (s *Session) replay(ctx context.Context, x *meta.Exchange, to meta.Binding) error {
	keeper := s.broker.View().KeeperOf(x.VHost, x.Name)
	if keeper == nil {
		return nil
	}
	if err := s.broker.answered(ctx, keeper.Group); err != nil { // what this client published before belongs to it
		return err
	}
	r, err := s.broker.callLeader(ctx, callRecent, keeper.Group, fields.AppendUint(nil, uint64(keeper.ID)))
	if err != nil {
		return err
	}
	var groups []mq.GroupID
	for p := (parser{fields.Read(r)}); p.More(); {
		m := outgoing{flags: p.Byte(), priority: p.Byte()}
		content, sound := mq.ParseContent(slices.Clone(p.Bytes()))
		if !sound || p.Err() != nil {
			return errFrame
		}
		m.content, m.ttlMs = content, ownTTL(content)
		targets, err := s.replayTargets(to, content)
		if err != nil {
			return err
		}
		m.nowMs = s.broker.nowMs()
		for i := range targets {
			if err := s.send(ctx, &targets[i], &m, waiter{}); err != nil {
				return err
			}
			groups = append(groups, targets[i].group)
		}
	}
	slices.Sort(groups)
	for _, g := range slices.Compact(groups) {
		if err := s.broker.answered(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// replayTargets is where a message of the past goes through a new binding.
func (s *Session) replayTargets(to meta.Binding, c mq.Content) ([]target, error) {
	w := newWalk(s.broker, s.broker.View(), s.vhost, c, [][]byte{c.RoutingKey()})
	err := w.follow(&to)
	return w.targets, err
}

// ownTTL is the time to live that a message carries; negative means none.
func ownTTL(c mq.Content) int64 {
	p, err := wire.ParseProperties(c.Properties())
	if err != nil || !p.Has(wire.HasExpiration) {
		return -1
	}
	if ms, err := strconv.ParseInt(p.Expiration, 10, 64); err == nil && ms >= 0 {
		return ms
	}
	return -1
}
