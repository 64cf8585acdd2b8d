package management

import (
	"context"
	"encoding/json"
	"time"
)

// Source is the node, as management sees it. All methods may be called from
// any number of goroutines at once and answer with copies.
type Source interface {
	Control
	// Ready is nil when every group on the node has a leader and the node has
	// caught up with it; otherwise it says what is missing. It does not block.
	Ready() error
	// Stats are the figures of this node. It is quick: /metrics calls it for
	// every scrape.
	Stats() Stats
	// Status is the cluster as this node sees it, with at most maxQueues of its
	// queues. It may ask other nodes, for as long as ctx lasts; what they did not
	// answer is left unknown.
	Status(ctx context.Context, maxQueues int) (Status, error)
	// Login checks a name and a password and returns the user's tags. here says
	// that the request comes from this machine. Who is refused gets an mq.Error
	// 403. It may ask the metadata leader, for as long as ctx lasts.
	Login(ctx context.Context, user, password string, here bool) (tags []string, err error)
	// Connections are the clients' connections of the whole cluster, or with a
	// name those of that name. It asks the other nodes, for as long as ctx lasts;
	// one that did not answer is left out.
	Connections(ctx context.Context, name string) []Connection
	// Channels and Consumers are those of the clients of the whole cluster; a node
	// that did not answer is left out. Only consumers in one vhost are asked for.
	Channels(ctx context.Context) []Channel
	Consumers(ctx context.Context, vhost string) []Consumer
	// CloseConnection closes a connection wherever it is; its client hears the
	// reason. False means that it has gone, or that its node did not answer.
	CloseConnection(ctx context.Context, c Connection, reason string) bool
}

// Channel is a client's open channel, under RabbitMQ's names.
type Channel struct {
	Connection    string `json:"connection"` // its name
	Node          string `json:"node"`
	Number        uint16 `json:"number"`
	User          string `json:"user"`
	VHost         string `json:"vhost"`
	Transactional bool   `json:"transactional"`
	Confirm       bool   `json:"confirm"`
	Consumers     int    `json:"consumer_count"`
	Unacked       int    `json:"messages_unacknowledged"`
	Unconfirmed   int    `json:"messages_unconfirmed"`
	Prefetch      int    `json:"prefetch_count"`
	GlobalLimit   int    `json:"global_prefetch_count"`
}

// Consumer is a client's consumer of a queue, under RabbitMQ's names.
type Consumer struct {
	VHost       string          `json:"vhost"`
	Queue       string          `json:"queue_name"`
	Connection  string          `json:"connection"` // its name
	Channel     uint16          `json:"channel"`
	Tag         string          `json:"consumer_tag"`
	AckRequired bool            `json:"ack_required"`
	Prefetch    uint32          `json:"prefetch_count"`
	Active      bool            `json:"active"`
	Arguments   json.RawMessage `json:"arguments"` // see arguments
}

// Connection is a client's connection, under RabbitMQ's names.
type Connection struct {
	Name             string          `json:"name"`                         // "127.0.0.1:46202 -> 127.0.0.1:5672"
	UserProvidedName string          `json:"user_provided_name,omitempty"` // the client property connection_name
	User             string          `json:"user"`
	VHost            string          `json:"vhost"`
	Node             string          `json:"node"` // the name of the node that it is on
	NodeID           string          `json:"-"`    // and its id
	State            string          `json:"state"`
	Channels         int             `json:"channels"`
	PeerHost         string          `json:"peer_host"` // the client's address
	PeerPort         int             `json:"peer_port"`
	Host             string          `json:"host"` // the node's
	Port             int             `json:"port"`
	SSL              bool            `json:"ssl"`
	AuthMechanism    string          `json:"auth_mechanism"`
	ChannelMax       uint16          `json:"channel_max"`
	FrameMax         uint32          `json:"frame_max"`    // bytes
	Timeout          int64           `json:"timeout"`      // the heartbeat interval in seconds
	ConnectedAt      int64           `json:"connected_at"` // Unix time in ms
	RecvOct          uint64          `json:"recv_oct"`     // bytes that the client sent
	SendOct          uint64          `json:"send_oct"`
	ClientProperties json.RawMessage `json:"client_properties"` // see Properties
}

// Stats are the figures of one node. Totals count from the node's start.
type Stats struct {
	Node      string // the node's name
	NodeID    string
	Cluster   string // the cluster's name
	ClusterID string
	Started   time.Time

	Connections, Channels, Consumers     uint64 // open now, of clients of this node
	ConnectionsOpened, ConnectionsClosed uint64
	ChannelsOpened, ChannelsClosed       uint64

	// Queues, QueueMessagesReady and QueueMessagesUnacked are of the queues that
	// this node leads or owns, so that the sum over all nodes counts each once.
	Queues, QueueMessagesReady, QueueMessagesUnacked uint64
	QueuesDeclared, QueuesCreated, QueuesDeleted     uint64

	Received           uint64 // published by clients of this node
	ReceivedConfirm    uint64 // of these, on a channel in confirm mode
	Confirmed          uint64 // confirms sent
	Routed             uint64 // copies handed to queues
	UnroutableDropped  uint64
	UnroutableReturned uint64
	DeliveredAutoAck   uint64 // by basic.deliver
	DeliveredManualAck uint64 // by basic.deliver
	GotAutoAck         uint64 // by basic.get
	GotManualAck       uint64 // by basic.get
	GetEmpty           uint64 // basic.get of an empty queue
	Redelivered        uint64 // of all deliveries
	Acknowledged       uint64
	Refused            uint64 // by queues that were full; once for each
	Deduplicated       uint64 // that queues had taken before; once for each
	Recalled           uint64 // deliveries that consumers held for too long
	RepliesDropped     uint64 // direct replies that nobody took

	// BodyMemory is what messages of durable queues take in memory, and
	// BodyMemoryLimit from where on they are paged out.
	BodyMemory, BodyMemoryLimit uint64
	PagedOutBytes, PagedInBytes uint64

	// Files of snapshots: what this node got from others because it lagged
	// behind, what it had of them already, and what it gave to others.
	SnapshotPulledBytes, SnapshotSkippedBytes, SnapshotServedBytes uint64
	// SnapshotsRefused came from others and made no sense, or had no room.
	SnapshotsRefused uint64
	Rebuilds         uint64 // of damaged replicas, begun since the start
	// StateMismatches is how often a replica here and one of another node had
	// applied the same entries and differed.
	StateMismatches uint64

	Groups []GroupStats // the Raft groups that have a replica here
}

// GroupStats are the figures of one node's replica of a Raft group.
type GroupStats struct {
	Group         uint64 // 0 is the metadata group
	Leader        bool   // this node leads it
	Term          uint64
	CommitIndex   uint64
	AppliedIndex  uint64
	LastIndex     uint64
	SnapshotIndex uint64
	Damaged       bool   // it has lost something, and does not lead
	Rebuilding    bool   // its peers bring it up
	ComparedIndex uint64 // up to which the replica here was compared with others
}

// Status is the cluster as one node sees it.
type Status struct {
	Node        string   `json:"node"` // the name of the node that answered
	NodeID      string   `json:"node_id"`
	Cluster     string   `json:"cluster"`
	ClusterID   string   `json:"cluster_id"`
	Version     string   `json:"version"`
	UptimeMs    int64    `json:"uptime_ms"`
	NotReady    string   `json:"not_ready,omitempty"` // why, if it is not
	Members     []Member `json:"members"`             // by name
	Groups      []Group  `json:"groups"`              // by id
	Queues      []Queue  `json:"queues"`              // by vhost and name
	QueuesTotal int      `json:"queues_total"`        // Queues may hold fewer
}

// Member is one node of the cluster.
type Member struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"` // its cluster address
	Alive   bool   `json:"alive"`
}

// Group is one Raft group. Nodes are given by id; a Leader of "" means that
// none is known.
type Group struct {
	ID           uint64   `json:"id"` // 0 is the metadata group
	Leader       string   `json:"leader"`
	Term         uint64   `json:"term"`
	CommitIndex  uint64   `json:"commit_index"`
	AppliedIndex uint64   `json:"applied_index"` // on the node that answered
	Replicas     []string `json:"replicas"`
}

// Queue is one queue. Its counts are -1 while its leader does not tell.
type Queue struct {
	VHost     string `json:"vhost"`
	Name      string `json:"name"`
	Durable   bool   `json:"durable"`
	Exclusive bool   `json:"exclusive"`
	Group     uint64 `json:"group"`  // 0 for a queue in the memory of Leader
	Leader    string `json:"leader"` // node id, "" if none is known
	Ready     int64  `json:"messages_ready"`
	Unacked   int64  `json:"messages_unacked"`
	Consumers int64  `json:"consumers"`
}
