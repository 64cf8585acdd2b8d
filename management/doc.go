// Package management serves what operators and their tools read from a node
// over HTTP: health checks, Prometheus metrics, the status of the cluster, and
// RabbitMQ's HTTP API as far as it goes. It knows Prometheus and RabbitMQ's
// names for things. It does not know where the figures come from: a Source
// answers with copies.
package management
