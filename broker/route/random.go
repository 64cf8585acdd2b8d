package route

// random picks one binding, whatever the message is (RabbitMQ, x-random).
type random []int

// Match implements Matcher.
func (r random) Match(m Message, hit func(int)) {
	if len(r) > 0 {
		hit(r[m.Random(len(r))])
	}
}

// localRandom picks one of the bindings to queues on the publisher's node, to
// spare the message the way to another one (RabbitMQ, "Local Random
// Exchange"). RabbitMQ drops it if there are none. A replicated queue, though,
// has no home that a client could know of: such queues stand in for local ones
// while another node leads them.
type localRandom []int

// Match implements Matcher.
func (r localRandom) Match(m Message, hit func(int)) {
	nearest, seen, pick := Elsewhere, 0, 0
	for _, dest := range r {
		place := m.Place(dest)
		if place == Elsewhere || place < nearest {
			continue
		}
		if place > nearest {
			nearest, seen = place, 0
		}
		// The n-th takes the place of the pick with a chance of 1 in n: in the
		// end all had the same.
		if seen++; m.Random(seen) == 0 {
			pick = dest
		}
	}
	if seen > 0 {
		hit(pick)
	}
}
