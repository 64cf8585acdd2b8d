// Package amqp is the server side of AMQP 0-9-1: it accepts sockets, speaks
// the protocol, and turns what clients ask into calls of a Broker.
//
// It knows connections, channels, delivery tags and confirms. It does not know
// what a queue is made of, where it lives, who leads it, how a message is
// routed, or that there are other nodes.
//
// A connection has two goroutines. The reader owns the socket's input and runs
// every fast method itself, so a publish or an ack crosses no goroutine. The
// writer owns the output: everything that goes to the client passes through
// its mailbox (outbox), and it encodes as much as is there into one write.
// A method that has to wait for the broker takes its channel out of the
// reader's hands (slot); the other channels go on.
package amqp
