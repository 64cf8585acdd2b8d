package route

import (
	"fmt"
	"math"
	"strconv"

	"warren/mq"
)

// WeightMax is the highest weight of a binding to an exchange of type
// x-consistent-hash.
const WeightMax = 10000

// HashArgs returns what an exchange of type x-consistent-hash hashes: a
// header, a property, or, if both are empty, the routing key.
func HashArgs(args mq.Table) (header, property string) {
	header, _ = args.String("hash-header")
	property, _ = args.String("hash-property")
	return header, property
}

// CanHash reports whether hash-property may name a property.
func CanHash(property string) bool {
	switch property {
	case "correlation_id", "message_id", "timestamp":
		return true
	}
	return false
}

// consistent shares messages out by a hash, in proportion to the bindings'
// weights (RabbitMQ, x-consistent-hash). Every destination draws a lot for
// every hash and the best lot wins ("weighted rendezvous hashing"): who comes
// takes from each of the others what is its share and who goes leaves what it
// had to all of them, and nothing else moves. No node needs to remember
// anything for that.
type consistent struct {
	header, property string // which are hashed; none is the routing key
	parties          []party
}

// party is one destination.
type party struct {
	seed     uint64
	inverted float64 // 1 / weight
	dest     int
}

// newConsistent takes the heaviest binding of every destination: bindings with
// other weights do not add up.
func newConsistent(args mq.Table, bindings []Binding) *consistent {
	var c consistent
	c.header, c.property = HashArgs(args)
	known := make(map[string]int, len(bindings))
	for _, b := range bindings {
		weight, err := strconv.Atoi(b.Key)
		if err != nil || weight < 1 {
			continue // no client can make such a binding
		}
		p := party{seed: hash(b.To), inverted: 1 / float64(weight), dest: b.Dest}
		at, again := known[b.To]
		switch {
		case !again:
			known[b.To] = len(c.parties)
			c.parties = append(c.parties, p)
		case p.inverted < c.parties[at].inverted:
			c.parties[at] = p
		}
	}
	return &c
}

// Match implements Matcher.
func (c *consistent) Match(m Message, hit func(int)) {
	if len(c.parties) == 0 {
		return
	}
	h := c.hash(m)
	best, winner := math.Inf(1), 0
	for i := range c.parties {
		p := &c.parties[i]
		// A lot from (0, 1]. Its negative logarithm is the time to the first
		// event of a process with rate 1, and over the weight that of one with
		// this rate: the first event is in proportion to the rates.
		lot := float64(mix(h^p.seed)>>11+1) / (1 << 53)
		if (1-lot)*p.inverted >= best { // at most -ln(lot), and cheaper
			continue
		}
		if first := -math.Log(lot) * p.inverted; first < best {
			best, winner = first, i
		}
	}
	hit(c.parties[winner].dest)
}

// hash is of what the exchange's arguments name. What a message does not have
// counts as empty; of several routing keys the one it was published with counts.
func (c *consistent) hash(m Message) uint64 {
	switch {
	case c.header != "":
		v, _ := m.Headers().Get(c.header)
		return hashValue(v)
	case c.property != "":
		return hash(m.Property(c.property))
	}
	return hash(m.Keys()[0])
}

// modulus picks one binding by the hash of all routing keys, modulo the number
// of bindings (RabbitMQ, x-modulus-hash): cheaper than consistent, but one
// binding more or less moves nearly all keys.
type modulus []int

// Match implements Matcher.
func (d modulus) Match(m Message, hit func(int)) {
	if len(d) == 0 {
		return
	}
	h := uint64(0)
	for _, key := range m.Keys() {
		h = mix(h ^ hash(key))
	}
	hit(d[h%uint64(len(d))])
}

// hashValue is the hash of a header's value. Numbers of any width count by
// their value, strings and byte arrays by their bytes.
func hashValue(v any) uint64 {
	if n, ok := mq.Int(v); ok {
		var digits [20]byte
		return hash(strconv.AppendInt(digits[:0], n, 10))
	}
	switch v := v.(type) {
	case nil:
		return hash("")
	case string:
		return hash(v)
	case []byte:
		return hash(v)
	}
	return hash(fmt.Sprint(v))
}

// hash is 64-bit FNV-1a, mixed. Nodes of all versions must agree on it: it
// never changes.
func hash[B string | []byte](b B) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	return mix(h)
}

// mix spreads every bit over all others (the finisher of SplitMix64).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
