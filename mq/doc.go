// Package mq holds the nouns that the rooms share: a message's Content, a
// Delivery and what settles it, topology changes (Op), Table, and Error. It
// does nothing, imports nothing of ours, and knows neither sockets nor Raft.
package mq
