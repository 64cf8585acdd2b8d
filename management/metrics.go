package management

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metric is one row of the table of metrics: the name that RabbitMQ's
// dashboards know, what it counts and in what unit, and where it comes from.
type metric struct {
	name   string
	kind   prometheus.ValueType
	unit   string // "" is a plain number
	help   string
	labels prometheus.Labels
	value  func(*Stats) float64
}

// Warren has one queue engine; RabbitMQ's dashboards sum over queue_type, and
// the quorum queue is what it is most like.
var (
	byProtocol  = prometheus.Labels{"protocol": "amqp091"}
	byQueueType = prometheus.Labels{"protocol": "amqp091", "queue_type": "rabbit_quorum_queue"}
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var nodeMetrics = []metric{
	{"rabbitmq_connections", gauge, "", "Connections currently open", nil, func(s *Stats) float64 { return float64(s.Connections) }},
	{"rabbitmq_channels", gauge, "", "Channels currently open", nil, func(s *Stats) float64 { return float64(s.Channels) }},
	{"rabbitmq_consumers", gauge, "", "Consumers currently connected", nil, func(s *Stats) float64 { return float64(s.Consumers) }},
	{"rabbitmq_queues", gauge, "", "Queues that this node leads or owns", nil, func(s *Stats) float64 { return float64(s.Queues) }},
	{"rabbitmq_connections_opened_total", counter, "", "Connections opened", nil, func(s *Stats) float64 { return float64(s.ConnectionsOpened) }},
	{"rabbitmq_connections_closed_total", counter, "", "Connections closed or terminated", nil, func(s *Stats) float64 { return float64(s.ConnectionsClosed) }},
	{"rabbitmq_channels_opened_total", counter, "", "Channels opened", nil, func(s *Stats) float64 { return float64(s.ChannelsOpened) }},
	{"rabbitmq_channels_closed_total", counter, "", "Channels closed", nil, func(s *Stats) float64 { return float64(s.ChannelsClosed) }},
	{"rabbitmq_queues_declared_total", counter, "", "Queues declared, also those that existed", nil, func(s *Stats) float64 { return float64(s.QueuesDeclared) }},
	{"rabbitmq_queues_created_total", counter, "", "Queues created", nil, func(s *Stats) float64 { return float64(s.QueuesCreated) }},
	{"rabbitmq_queues_deleted_total", counter, "", "Queues deleted", nil, func(s *Stats) float64 { return float64(s.QueuesDeleted) }},
	{"rabbitmq_queue_messages_ready", gauge, "", "Messages ready to be delivered, in queues that this node leads or owns", nil, func(s *Stats) float64 { return float64(s.QueueMessagesReady) }},
	{"rabbitmq_queue_messages_unacked", gauge, "", "Messages delivered and not yet settled, in queues that this node leads or owns", nil, func(s *Stats) float64 { return float64(s.QueueMessagesUnacked) }},
	{"rabbitmq_queue_messages", gauge, "", "Messages ready and unacked, in queues that this node leads or owns", nil, func(s *Stats) float64 { return float64(s.QueueMessagesReady + s.QueueMessagesUnacked) }},
	{"rabbitmq_global_messages_received_total", counter, "", "Messages received from publishers", byProtocol, func(s *Stats) float64 { return float64(s.Received) }},
	{"rabbitmq_global_messages_received_confirm_total", counter, "", "Messages received from publishers that use confirms", byProtocol, func(s *Stats) float64 { return float64(s.ReceivedConfirm) }},
	{"rabbitmq_global_messages_confirmed_total", counter, "", "Messages confirmed to publishers", byProtocol, func(s *Stats) float64 { return float64(s.Confirmed) }},
	{"rabbitmq_global_messages_routed_total", counter, "", "Messages routed to queues", byProtocol, func(s *Stats) float64 { return float64(s.Routed) }},
	{"rabbitmq_global_messages_unroutable_dropped_total", counter, "", "Messages that no queue took, dropped", byProtocol, func(s *Stats) float64 { return float64(s.UnroutableDropped) }},
	{"rabbitmq_global_messages_unroutable_returned_total", counter, "", "Messages that no queue took, returned to their publisher", byProtocol, func(s *Stats) float64 { return float64(s.UnroutableReturned) }},
	{"rabbitmq_global_messages_delivered_total", counter, "", "Messages delivered to consumers and handed out by basic.get", byQueueType, delivered},
	{"rabbitmq_global_messages_delivered_consume_auto_ack_total", counter, "", "Messages delivered to consumers with automatic acknowledgement", byQueueType, func(s *Stats) float64 { return float64(s.DeliveredAutoAck) }},
	{"rabbitmq_global_messages_delivered_consume_manual_ack_total", counter, "", "Messages delivered to consumers with manual acknowledgement", byQueueType, func(s *Stats) float64 { return float64(s.DeliveredManualAck) }},
	{"rabbitmq_global_messages_delivered_get_auto_ack_total", counter, "", "Messages handed out by basic.get with automatic acknowledgement", byQueueType, func(s *Stats) float64 { return float64(s.GotAutoAck) }},
	{"rabbitmq_global_messages_delivered_get_manual_ack_total", counter, "", "Messages handed out by basic.get with manual acknowledgement", byQueueType, func(s *Stats) float64 { return float64(s.GotManualAck) }},
	{"rabbitmq_global_messages_get_empty_total", counter, "", "Times basic.get found an empty queue", byQueueType, func(s *Stats) float64 { return float64(s.GetEmpty) }},
	{"rabbitmq_global_messages_redelivered_total", counter, "", "Messages delivered that had been handed out before", byQueueType, func(s *Stats) float64 { return float64(s.Redelivered) }},
	{"rabbitmq_global_messages_acknowledged_total", counter, "", "Messages acknowledged by consumers", byQueueType, func(s *Stats) float64 { return float64(s.Acknowledged) }},
	{"warren_messages_refused_total", counter, "", "Messages that a full queue refused, once for each queue", nil, func(s *Stats) float64 { return float64(s.Refused) }},
	{"warren_messages_deduplicated_total", counter, "", "Messages that a queue had taken before, once for each queue", nil, func(s *Stats) float64 { return float64(s.Deduplicated) }},
	{"warren_deliveries_recalled_total", counter, "", "Deliveries taken back from consumers that held them for too long", nil, func(s *Stats) float64 { return float64(s.Recalled) }},
	{"warren_direct_replies_dropped_total", counter, "", "Direct replies whose requester had gone or did not read", nil, func(s *Stats) float64 { return float64(s.RepliesDropped) }},
	{"warren_body_memory_bytes", gauge, "bytes", "Memory of messages in durable queues", nil, func(s *Stats) float64 { return float64(s.BodyMemory) }},
	{"warren_body_memory_limit_bytes", gauge, "bytes", "Memory above which messages are paged out", nil, func(s *Stats) float64 { return float64(s.BodyMemoryLimit) }},
	{"warren_bodies_paged_out_bytes_total", counter, "bytes", "Messages paged out to disk", nil, func(s *Stats) float64 { return float64(s.PagedOutBytes) }},
	{"warren_bodies_paged_in_bytes_total", counter, "bytes", "Messages paged in from disk", nil, func(s *Stats) float64 { return float64(s.PagedInBytes) }},
	{"warren_snapshot_pulled_bytes_total", counter, "bytes", "Files of snapshots that this node got from others", nil, func(s *Stats) float64 { return float64(s.SnapshotPulledBytes) }},
	{"warren_snapshot_skipped_bytes_total", counter, "bytes", "Files of others' snapshots that this node had already", nil, func(s *Stats) float64 { return float64(s.SnapshotSkippedBytes) }},
	{"warren_snapshot_served_bytes_total", counter, "bytes", "Files of snapshots that this node gave to others", nil, func(s *Stats) float64 { return float64(s.SnapshotServedBytes) }},
	{"warren_snapshots_refused_total", counter, "", "Snapshots of others that made no sense, or that the disk had no room for", nil, func(s *Stats) float64 { return float64(s.SnapshotsRefused) }},
	{"warren_raft_rebuilds_total", counter, "", "Rebuilds of damaged replicas that were begun", nil, func(s *Stats) float64 { return float64(s.Rebuilds) }},
	{"warren_state_hash_mismatches_total", counter, "", "Times a replica on this node and one of another node had applied the same entries and differed", nil, func(s *Stats) float64 { return float64(s.StateMismatches) }},
	{"erlang_uptime_seconds", gauge, "seconds", "Time since the node started, under the name that RabbitMQ's dashboards read", nil, func(s *Stats) float64 { return time.Since(s.Started).Seconds() }},
}

// groupMetric is one row of the table of metrics that each Raft group has.
type groupMetric struct {
	name, help string
	value      func(*GroupStats) float64
}

var groupMetrics = []groupMetric{
	{"rabbitmq_raft_term", "Current term of the group", func(g *GroupStats) float64 { return float64(g.Term) }},
	{"rabbitmq_raft_commit_index", "Highest log index known to be on a majority", func(g *GroupStats) float64 { return float64(g.CommitIndex) }},
	{"rabbitmq_raft_last_applied", "Highest log index applied on this node", func(g *GroupStats) float64 { return float64(g.AppliedIndex) }},
	{"rabbitmq_raft_last_written_index", "Highest log index written on this node", func(g *GroupStats) float64 { return float64(g.LastIndex) }},
	{"rabbitmq_raft_snapshot_index", "Log index of the latest snapshot", func(g *GroupStats) float64 { return float64(g.SnapshotIndex) }},
	{"warren_state_compared_index", "Newest log index at which the state of the replica here was compared with another node's", func(g *GroupStats) float64 { return float64(g.ComparedIndex) }},
	{"warren_raft_leader", "1 if this node leads the group", func(g *GroupStats) float64 { return one(g.Leader) }},
	{"warren_raft_damaged", "1 if this node's replica has lost something, and cannot be relied on", func(g *GroupStats) float64 { return one(g.Damaged) }},
	{"warren_raft_rebuilding", "1 if this node's replica is being rebuilt from its peers", func(g *GroupStats) float64 { return one(g.Rebuilding) }},
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func delivered(s *Stats) float64 {
	return float64(s.DeliveredAutoAck + s.DeliveredManualAck + s.GotAutoAck + s.GotManualAck)
}

// collector turns a node's Stats into metrics, once per scrape.
type collector struct {
	source   Source
	version  string
	identity *prometheus.Desc
	build    *prometheus.Desc
	node     []*prometheus.Desc // one for each of nodeMetrics
	group    []*prometheus.Desc // one for each of groupMetrics
}

func newCollector(source Source, version string) *collector {
	c := &collector{
		source:  source,
		version: version,
		identity: prometheus.NewDesc("rabbitmq_identity_info", "The node and its cluster",
			[]string{"rabbitmq_node", "rabbitmq_cluster", "rabbitmq_cluster_permanent_id"}, nil),
		build: prometheus.NewDesc("rabbitmq_build_info", "The version that the node runs",
			[]string{"product_name", "product_version", "rabbitmq_version", "go_version"}, nil),
	}
	for _, m := range nodeMetrics {
		c.node = append(c.node, prometheus.NewDesc(m.name, helpText(m), nil, m.labels))
	}
	for _, m := range groupMetrics {
		c.group = append(c.group, prometheus.NewDesc(m.name, m.help, []string{"group"}, nil))
	}
	return c
}

func helpText(m metric) string {
	if m.unit == "" {
		return m.help
	}
	return m.help + " (" + m.unit + ")"
}

// Describe is for the Prometheus registry.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.identity
	out <- c.build
	for _, d := range c.node {
		out <- d
	}
	for _, d := range c.group {
		out <- d
	}
}

// Collect is for the Prometheus registry.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Stats()
	out <- prometheus.MustNewConstMetric(c.identity, gauge, 1, s.Node, s.Cluster, s.ClusterID)
	out <- prometheus.MustNewConstMetric(c.build, gauge, 1, "Warren", c.version, c.version, runtime.Version())
	for i, m := range nodeMetrics {
		out <- prometheus.MustNewConstMetric(c.node[i], m.kind, m.value(&s))
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		for j, m := range groupMetrics {
			out <- prometheus.MustNewConstMetric(c.group[j], gauge, m.value(g), strconv.FormatUint(g.Group, 10))
		}
	}
}

// scrapesMax is how many scrapes may run at once; more are answered with 503.
const scrapesMax = 4

// metricsHandler serves the node's figures, the process's under both
// Prometheus's and RabbitMQ's names, and the Go runtime's.
func metricsHandler(source Source, version string) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		newCollector(source, version),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: "rabbitmq"}),
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesMax,
		Timeout:             writeTimeout / 2,
	})
}
