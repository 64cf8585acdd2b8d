package route

import (
	"bytes"
	"strings"
)

// topic matches the words of the routing key, split by '.', against patterns
// in which '*' is one word and '#' any number of them, also none (AMQP 0-9-1
// §3.1.3.3). Empty words count; the empty key has no words, as in RabbitMQ.
//
// The patterns are a trie. Matching walks the key once with the set of trie
// nodes that its words so far lead to, so that no set of patterns makes it
// more than words x nodes.
type topic struct{ root *topicNode }

// HashesMax is how many '#' a pattern may have. More of them say nothing more;
// RabbitMQ refuses them since 4.3.5.
const HashesMax = 2

// CountHashes counts the words of a pattern that are '#'.
func CountHashes(pattern string) (n int) {
	for word := range strings.SplitSeq(pattern, ".") {
		if word == "#" {
			n++
		}
	}
	return n
}

type topicNode struct {
	words map[string]*topicNode
	star  *topicNode
	hash  *topicNode // reached without a word, and stays for any number of them
	isAny bool       // this node is its parent's hash
	dests []int
}

func newTopic(bindings []Binding) topic {
	t := topic{&topicNode{}}
	for _, b := range bindings {
		n := t.root
		for words, more := b.Key, b.Key != ""; more; {
			var word string
			word, words, more = strings.Cut(words, ".")
			n = n.child(word)
		}
		n.dests = append(n.dests, b.Dest)
	}
	return t
}

// child returns the node that word leads to, made if need be.
func (n *topicNode) child(word string) *topicNode {
	switch word {
	case "*":
		if n.star == nil {
			n.star = &topicNode{}
		}
		return n.star
	case "#":
		if n.isAny {
			return n // "#.#" is "#"
		}
		if n.hash == nil {
			n.hash = &topicNode{isAny: true}
		}
		return n.hash
	}
	next := n.words[word]
	if next == nil {
		if n.words == nil {
			n.words = map[string]*topicNode{}
		}
		next = &topicNode{}
		n.words[word] = next
	}
	return next
}

// leaf reports whether nothing comes after n.
func (n *topicNode) leaf() bool { return n.words == nil && n.star == nil && n.hash == nil }

// Match implements Matcher.
func (t topic) Match(m Message, hit func(int)) {
	for _, key := range m.Keys() {
		t.match(key, hit)
	}
}

func (t topic) match(key []byte, hit func(int)) {
	// On the stack for all but odd sets of patterns.
	var a, b, c [32]*topicNode
	at, next := a[:0], b[:0]
	// stay are the hash nodes reached so far: no word leads away from them.
	stay := c[:0]
	at, stay = enter(at, stay, t.root, hit)
	for words, more := key, len(key) > 0; more; {
		var word []byte
		word, words, more = bytes.Cut(words, dot)
		next = next[:0]
		// Those that this word makes stay may only be walked from the next one on.
		for _, n := range stay[:len(stay):len(stay)] {
			next, stay = step(next, stay, n, word, hit)
		}
		for _, n := range at {
			next, stay = step(next, stay, n, word, hit)
		}
		at, next = next, at
	}
	for _, n := range at {
		hits(n, hit)
	}
	for _, n := range stay {
		hits(n, hit)
	}
}

var dot = []byte{'.'}

// step follows one word from n.
func step(next, stay []*topicNode, n *topicNode, word []byte, hit func(int)) (_, _ []*topicNode) {
	if to := n.words[string(word)]; to != nil {
		next, stay = enter(next, stay, to, hit)
	}
	if n.star != nil {
		next, stay = enter(next, stay, n.star, hit)
	}
	return next, stay
}

// enter adds n, and its hash node, which takes no word to reach. A node is
// entered from its parent only, so at most once for each word; only a hash
// node can be there from an earlier word.
func enter(at, stay []*topicNode, n *topicNode, hit func(int)) (_, _ []*topicNode) {
	at = append(at, n)
	h := n.hash
	switch {
	case h == nil:
	case h.leaf(): // it matches whatever comes
		hits(h, hit)
	default:
		for _, s := range stay {
			if s == h {
				return at, stay
			}
		}
		stay = append(stay, h)
	}
	return at, stay
}

func hits(n *topicNode, hit func(int)) {
	for _, dest := range n.dests {
		hit(dest)
	}
}
