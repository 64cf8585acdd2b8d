// Package route matches routing keys and headers against the bindings of one
// exchange: direct, fanout, topic and headers (AMQP 0-9-1 §3.1.3).
//
// It is pure. It does not know exchanges' names, queues, alternate exchanges,
// bindings between exchanges, or permissions: a destination is a number.
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
}

// Matcher finds the destinations of a message. It is immutable: any number of
// goroutines may use it at once.
type Matcher interface {
	// Match calls hit for every destination; it may name one more than once.
	// headers is called at most once, and only by an exchange of type headers;
	// it may be nil, which means that the message has none.
	Match(key []byte, headers func() mq.Table, hit func(dest int))
}

// Compile makes the Matcher of an exchange of type kind: direct, fanout, topic
// or headers.
func Compile(kind string, bindings []Binding) (Matcher, error) {
	switch kind {
	case "direct":
		return newDirect(bindings), nil
	case "fanout":
		return newFanout(bindings), nil
	case "topic":
		return newTopic(bindings), nil
	case "headers":
		return newHeaders(bindings), nil
	}
	return nil, fmt.Errorf("compile bindings: no exchange type %q", kind)
}
