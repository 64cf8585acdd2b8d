// Package management serves what operators and their tools read from a node
// over HTTP: health checks, Prometheus metrics and the status of the cluster.
// It knows Prometheus and RabbitMQ's names for things. It does not know where
// the figures come from: a Source answers with copies.
package management
