// Package route matches messages against the bindings of one exchange: direct,
// fanout, topic and headers (AMQP 0-9-1 §3.1.3), and RabbitMQ's types that
// share messages out among the bindings (x-consistent-hash, x-modulus-hash,
// x-random, x-local-random).
//
// It is pure: chance comes from outside. It does not know exchanges' names,
// queues, alternate exchanges, bindings between exchanges, or permissions: a
// destination is a number.
package route

import (
	"fmt"

	"warren/mq"
)

// Binding is one binding of the exchange that is compiled.
type Binding struct {
	Key  string
	Args mq.Table
	Dest int // index into the caller's list of destinations
	// To names what the binding leads to: the same for all bindings to one
	// destination, and for as long as it exists.
	To string
}

// Message is what exchanges route by.
type Message interface {
	// Keys are the key that the message was published with and those that its
	// sender added (CC, BCC).
	Keys() [][]byte
	// Headers are asked for by exchanges that look at them, once by each.
	Headers() mq.Table
	// Property is a property that CanHash names, a timestamp in decimal; nil for none.
	Property(name string) []byte
	// Random is an even draw from 0 to n-1.
	Random(n int) int
	// Place says where a destination of the exchange is, seen from the publisher.
	Place(dest int) Place
}

// Place is where a destination is, seen from the publisher's node.
type Place uint8

// The places, from the farthest.
const (
	Elsewhere Place = iota // in another node's memory, or nowhere
	Anywhere               // on several nodes, and another one leads
	Here                   // on the publisher's node
)

// Matcher finds the destinations of a message. It is immutable: any number of
// goroutines may use it at once.
type Matcher interface {
	// Match calls hit for every destination; it may name one more than once.
	Match(m Message, hit func(dest int))
}

// Known reports whether kind is an exchange type.
func Known(kind string) bool {
	_, err := Compile(kind, nil, nil)
	return err == nil
}

// ByKey reports whether an exchange sends messages with the same keys to the
// same destinations as long as its bindings stay.
func ByKey(kind string, args mq.Table) bool {
	switch kind {
	case "headers", "x-random", "x-local-random":
		return false
	case "x-consistent-hash":
		header, property := HashArgs(args)
		return header == "" && property == ""
	}
	return true
}

// Compile makes the Matcher of an exchange of type kind. The order of the
// bindings counts for types that pick one: it must be the same on every node.
func Compile(kind string, args mq.Table, bindings []Binding) (Matcher, error) {
	switch kind {
	case "direct":
		return newDirect(bindings), nil
	case "fanout":
		return newFanout(bindings), nil
	case "topic":
		return newTopic(bindings), nil
	case "headers":
		return newHeaders(bindings), nil
	case "x-consistent-hash":
		return newConsistent(args, bindings), nil
	case "x-modulus-hash":
		return modulus(dests(bindings)), nil
	case "x-random":
		return random(dests(bindings)), nil
	case "x-local-random":
		return localRandom(dests(bindings)), nil
	}
	return nil, fmt.Errorf("compile bindings: no exchange type %q", kind)
}

// dests are the destinations of the bindings: one that is bound twice is there
// twice.
func dests(bindings []Binding) []int {
	d := make([]int, len(bindings))
	for i := range bindings {
		d[i] = bindings[i].Dest
	}
	return d
}
