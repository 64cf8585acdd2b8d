// Package wire turns bytes into AMQP 0-9-1 frames, methods, field tables and
// content properties, and back. It decodes from slices that are already in
// memory, checks every length before it allocates and every depth before it
// recurses, and encodes by appending.
//
// It knows the shape of what is said and nothing of what it means: not the
// order of methods, not channels' states, not who may do what, no sockets.
//
// Every error that the bytes cause is an *mq.Error with the code that the
// connection is to be closed with.
package wire
