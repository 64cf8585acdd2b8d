package route

// direct matches the whole routing key (AMQP 0-9-1 §3.1.3.1).
type direct map[string][]int

func newDirect(bindings []Binding) direct {
	d := make(direct, len(bindings))
	for _, b := range bindings {
		d[b.Key] = append(d[b.Key], b.Dest)
	}
	return d
}

// Match implements Matcher.
func (d direct) Match(m Message, hit func(int)) {
	for _, key := range m.Keys() {
		for _, dest := range d[string(key)] {
			hit(dest)
		}
	}
}

// fanout ignores the routing key (§3.1.3.2).
type fanout []int

func newFanout(bindings []Binding) fanout {
	f := make(fanout, 0, len(bindings))
	seen := make(map[int]bool, len(bindings))
	for _, b := range bindings {
		if !seen[b.Dest] {
			seen[b.Dest] = true
			f = append(f, b.Dest)
		}
	}
	return f
}

// Match implements Matcher.
func (f fanout) Match(_ Message, hit func(int)) {
	for _, dest := range f {
		hit(dest)
	}
}
