package meta

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

// model is the metadata as one would write it down without a care for speed.
type model struct {
	queues    map[string]mq.SessionID // owner, 0 for durable
	exchanges map[string]bool         // auto-delete
	bindings  map[string]Binding
	sessions  map[mq.NodeID]mq.SessionID
	policies  map[string]Policy
}

func (m *model) dropQueue(name string) {
	delete(m.queues, name)
	m.dropBindings(func(b Binding) bool { return !b.ToExchange && b.Destination == name })
}

func (m *model) dropExchange(name string) {
	delete(m.exchanges, name)
	m.dropBindings(func(b Binding) bool { return b.Source == name || b.ToExchange && b.Destination == name })
}

func (m *model) dropBindings(match func(Binding) bool) {
	var sources []string
	for k, b := range m.bindings {
		if match(b) {
			delete(m.bindings, k)
			sources = append(sources, b.Source)
		}
	}
	for _, x := range sources {
		if m.exchanges[x] && !m.bound(x) {
			m.dropExchange(x)
		}
	}
}

func (m *model) bound(source string) bool {
	for _, b := range m.bindings {
		if b.Source == source {
			return true
		}
	}
	return false
}

func (m *model) endSession(node mq.NodeID) {
	if s, ok := m.sessions[node]; ok {
		for name, owner := range m.queues {
			if owner == s {
				m.dropQueue(name)
			}
		}
		delete(m.sessions, node)
	}
}

func (m *model) apply(op Op, index uint64) {
	switch op := op.(type) {
	case QueueDeclare:
		_, exists := m.queues[op.Name]
		if alive := slices.Contains(slices.Collect(maps.Values(m.sessions)), op.Owner); !exists && (op.Owner == 0 || alive) {
			m.queues[op.Name] = op.Owner
		}
	case QueueDelete:
		m.dropQueue(op.Name)
	case ExchangeDeclare:
		if _, exists := m.exchanges[op.Name]; !exists {
			m.exchanges[op.Name] = op.AutoDelete
		}
	case ExchangeDelete:
		if !op.IfUnused || !m.bound(op.Name) {
			m.dropExchange(op.Name)
		}
	case Bind:
		_, there := m.queues[op.Destination]
		if op.ToExchange {
			_, there = m.exchanges[op.Destination]
		}
		if _, source := m.exchanges[op.Source]; source && there {
			m.bindings[fmt.Sprint(op.Binding)] = op.Binding
		}
	case Unbind:
		key := fmt.Sprint(op.Binding)
		m.dropBindings(func(b Binding) bool { return fmt.Sprint(b) == key })
	case PolicySet:
		m.policies[op.Name] = op.Policy
	case PolicyClear:
		delete(m.policies, op.Name)
	case SessionOpen:
		m.endSession(op.Node)
		m.sessions[op.Node] = mq.SessionID(index)
	case SessionEnd:
		for node, s := range m.sessions {
			if s == op.Session {
				m.endSession(node)
			}
		}
	}
}

// effective is what policies make of a queue that was declared without arguments.
func (m *model) effective(queue string) mq.Table {
	var best *Policy
	for _, name := range slices.Sorted(maps.Keys(m.policies)) {
		p := m.policies[name]
		if ok, _ := regexp.MatchString(p.Pattern, queue); ok && (best == nil || p.Priority > best.Priority) {
			best = &p
		}
	}
	if best == nil {
		return nil
	}
	return mq.Table{{Key: "x-max-length", Value: best.Definition[0].Value}}
}

func (m *model) check(t *rapid.T, v *View) {
	var queues, exchanges, bindings []string
	for q := range v.EachQueue("/") {
		queues = append(queues, q.Name)
		if v.QueueByID(q.ID) != q || q.Owner != m.queues[q.Name] {
			t.Fatalf("queue %+v, model owner %d", q, m.queues[q.Name])
		}
		if !slices.Contains(slices.Collect(v.QueuesOf(q.Group)), q) {
			t.Fatalf("queue %s is not in its group", q.Name)
		}
		if got, want := q.Effective(), m.effective(q.Name); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("queue %s works by %v, want %v", q.Name, got, want)
		}
	}
	for x := range v.EachExchange("/") {
		if x.Name != "" && !bytes.HasPrefix([]byte(x.Name), []byte("amq.")) {
			exchanges = append(exchanges, x.Name)
		}
		for b := range v.BindingsFrom("/", x.Name) {
			bindings = append(bindings, fmt.Sprint(*b))
			to := v.BindingsToQueue
			if b.ToExchange {
				to = v.BindingsToExchange
			}
			if !slices.Contains(slices.Collect(to("/", b.Destination)), b) {
				t.Fatalf("binding %v is not found from its destination", b)
			}
		}
	}
	slices.Sort(bindings)
	for what, pair := range map[string][2][]string{
		"queues":    {queues, slices.Sorted(maps.Keys(m.queues))},
		"exchanges": {exchanges, slices.Sorted(maps.Keys(m.exchanges))},
		"bindings":  {bindings, slices.Sorted(maps.Keys(m.bindings))},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			t.Fatalf("%s: got %q, model has %q", what, pair[0], pair[1])
		}
	}
	if v.BindingCount() != len(m.bindings) || v.QueueCount() != len(m.queues) {
		t.Fatalf("%d bindings, %d queues", v.BindingCount(), v.QueueCount())
	}
}

// drawOp draws an operation; sessions are those opened so far.
func drawOp(t *rapid.T, sessions []mq.SessionID) Op {
	queue := rapid.SampledFrom([]string{"q1", "q2", "q3"})
	exchange := rapid.SampledFrom([]string{"x1", "x2", "x3", "x4"})
	binding := func() Binding {
		b := Binding{VHost: "/", Source: exchange.Draw(t, "source"), Key: rapid.SampledFrom([]string{"", "k"}).Draw(t, "key")}
		if b.ToExchange = rapid.Bool().Draw(t, "to exchange"); b.ToExchange {
			b.Destination = exchange.Draw(t, "destination")
		} else {
			b.Destination = queue.Draw(t, "destination")
		}
		return b
	}
	switch rapid.IntRange(0, 13).Draw(t, "op") {
	case 0, 1:
		return durable(queue.Draw(t, "queue"))
	case 2:
		if len(sessions) > 0 {
			s := rapid.SampledFrom(sessions).Draw(t, "session")
			q := exclusive(queue.Draw(t, "queue"), s, 1)
			q.Exclusive = false
			return q
		}
		return durable(queue.Draw(t, "queue"))
	case 3:
		return QueueDelete{VHost: "/", Name: queue.Draw(t, "queue")}
	case 4, 5:
		return ExchangeDeclare{VHost: "/", Name: exchange.Draw(t, "exchange"), Type: "topic",
			AutoDelete: rapid.Bool().Draw(t, "auto-delete")}
	case 6:
		return ExchangeDelete{VHost: "/", Name: exchange.Draw(t, "exchange"), IfUnused: rapid.Bool().Draw(t, "if unused")}
	case 7, 8, 9:
		return Bind{binding()}
	case 10:
		return Unbind{binding()}
	case 11:
		p := policy(rapid.SampledFrom([]string{"p1", "p2"}).Draw(t, "policy"), rapid.SampledFrom([]string{"", "^q1$", "[23]"}).Draw(t, "pattern"),
			rapid.Int64Range(0, 2).Draw(t, "priority"), "max-length", rapid.Int64Range(0, 3).Draw(t, "max-length"))
		if rapid.IntRange(0, 3).Draw(t, "clear") == 0 {
			return PolicyClear{VHost: "/", Name: p.Name}
		}
		return p
	}
	if len(sessions) > 0 && rapid.Bool().Draw(t, "end") {
		return SessionEnd{Session: rapid.SampledFrom(sessions).Draw(t, "session")}
	}
	return SessionOpen{Node: rapid.SampledFrom([]mq.NodeID{"n1", "n2"}).Draw(t, "node")}
}

// Three states see the same log: one gives a View after every entry, one only
// at the end, and one is restored from its own snapshot now and then.
func TestAnyLogAgreesWithTheModelAndWithItself(t *testing.T) {
	base := newLog(t)
	snapshot := base.state.AppendTo(nil)
	rapid.Check(t, func(t *rapid.T) {
		eager, lazy, restored := New(), New(), New()
		for _, s := range []*State{eager, lazy, restored} {
			if err := s.Restore(snapshot); err != nil {
				t.Fatal(err)
			}
		}
		m := &model{map[string]mq.SessionID{}, map[string]bool{}, map[string]Binding{}, map[mq.NodeID]mq.SessionID{}, map[string]Policy{}}
		var sessions []mq.SessionID
		index := base.index
		for range rapid.IntRange(1, 40).Draw(t, "entries") {
			index++
			op := drawOp(t, sessions)
			entry := AppendEntry(nil, 1, int64(index), op)
			results := make([][]Result, 0, 3)
			for _, s := range []*State{eager, lazy, restored} {
				r, _, err := s.Apply(index, 1, entry)
				if err != nil {
					t.Fatal(err)
				}
				results = append(results, r)
			}
			for _, r := range results[1:] {
				if !bytes.Equal(AppendResults(nil, r), AppendResults(nil, results[0])) {
					t.Fatalf("results differ: %v and %v", r, results[0])
				}
			}
			if s, ok := results[0][0].Value.(mq.SessionID); ok {
				sessions = append(sessions, s)
			}
			m.apply(op, index)
			m.check(t, eager.View())
			if rapid.IntRange(0, 5).Draw(t, "restore") == 0 {
				b := restored.AppendTo(nil)
				restored = New()
				if err := restored.Restore(b); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := eager.AppendTo(nil)
		if !bytes.Equal(want, lazy.AppendTo(nil)) || !bytes.Equal(want, restored.AppendTo(nil)) {
			t.Fatal("the same log gave different bytes")
		}
	})
}

func TestNoBytesBreakRestoreOrParse(t *testing.T) {
	l := newLog(t)
	l.must(durable("q"))
	l.must(Bind{toQueue("amq.fanout", "q")})
	l.must(policy("p", "^q", 1, "max-length", int64(3)))
	l.must(TopicPermissionSet{User: "guest", VHost: "/", Exchange: "amq.topic", Write: "w"})
	l.must(TracingSet{VHost: "/", On: true})
	good := l.state.AppendTo(nil)
	rapid.Check(t, func(t *rapid.T) {
		b := slices.Clone(good)
		for range rapid.IntRange(1, 4).Draw(t, "faults") {
			b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		b = b[:rapid.IntRange(0, len(b)).Draw(t, "cut")]
		_ = New().Restore(b)
		_, _ = ParseOps(b)
		_, _ = ParseResults(b)
	})
}
