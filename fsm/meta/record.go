package meta

import (
	"warren/mq"

	"warren/internal/fields"
)

// Records are immutable once they are in a View: a change makes a new one.

// VHost is a name space of exchanges, queues and bindings.
type VHost struct {
	Name             string
	Description      string
	Tags             []string
	DefaultQueueType string // shown, never acted on: there is one queue engine
}

// User is who may log in. Tags are RabbitMQ's (administrator, monitoring, …).
type User struct {
	Name         string
	PasswordHash string // base64 as in RabbitMQ's definition files; "" refuses every password
	Algorithm    string // HashSHA256 if empty
	Tags         []string
}

// Permission is what a user may configure, write and read in a vhost: three
// regular expressions over names, in RabbitMQ's meaning.
type Permission struct {
	User, VHost            string
	Configure, Write, Read string
}

// Exchange is where messages are published to.
type Exchange struct {
	VHost, Name, Type             string
	Durable, AutoDelete, Internal bool
	Args                          mq.Table
	// Version is different whenever the exchange or the bindings from it are:
	// what was compiled from them is good as long as Version stays. Policies do
	// not count.
	Version uint64

	applied   applied
	effective mq.Table // set if applied is
}

// Queue is where messages wait. Its messages live in Group.
type Queue struct {
	ID                             mq.QueueID
	VHost, Name                    string
	Durable, Exclusive, AutoDelete bool
	Args                           mq.Table
	Group                          mq.GroupID
	// Owner is the node session whose memory holds the queue, 0 for a durable one.
	Owner mq.SessionID
	// OwnerConn is the connection on Owner's node that an exclusive queue belongs to.
	OwnerConn uint64
	Keeper    Keeper

	applied   applied
	effective mq.Table // set if applied is
}

// Binding leads from an exchange to a queue or to another exchange. All its
// fields together are its identity.
type Binding struct {
	VHost, Source, Destination string
	ToExchange                 bool
	Key                        string
	Args                       mq.Table // sorted by key, as RabbitMQ keeps them
}

// Node is a member of the cluster. Number is short for ID and never reused.
type Node struct {
	Number uint32
	ID     mq.NodeID
	Name   string
	Addr   string
}

// Group is a Raft group that holds durable queues, and who replicates it.
type Group struct {
	ID       mq.GroupID
	Replicas []mq.NodeID
}

// Setting is a named value that holds for the whole cluster.
type Setting struct{ Name, Value string }

// session is the current run of a node.
type session struct {
	Node mq.NodeID
	ID   mq.SessionID
}

func (v *VHost) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, v.Name)
	dst = fields.AppendString(dst, v.Description)
	dst = appendStrings(dst, v.Tags)
	return fields.AppendString(dst, v.DefaultQueueType)
}

func (d *decoder) vhost() *VHost {
	return &VHost{Name: d.Text(), Description: d.Text(), Tags: d.strs(), DefaultQueueType: d.Text()}
}

func (u *User) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, u.Name)
	dst = fields.AppendString(dst, u.PasswordHash)
	dst = fields.AppendString(dst, u.Algorithm)
	return appendStrings(dst, u.Tags)
}

func (d *decoder) user() *User {
	return &User{Name: d.Text(), PasswordHash: d.Text(), Algorithm: d.Text(), Tags: d.strs()}
}

func (p *Permission) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, p.User)
	dst = fields.AppendString(dst, p.VHost)
	dst = fields.AppendString(dst, p.Configure)
	dst = fields.AppendString(dst, p.Write)
	return fields.AppendString(dst, p.Read)
}

func (d *decoder) permission() *Permission {
	return &Permission{User: d.Text(), VHost: d.Text(), Configure: d.Text(), Write: d.Text(), Read: d.Text()}
}

func (x *Exchange) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, x.VHost)
	dst = fields.AppendString(dst, x.Name)
	dst = fields.AppendString(dst, x.Type)
	dst = appendFlags(dst, x.Durable, x.AutoDelete, x.Internal)
	dst = appendTable(dst, x.Args)
	return fields.AppendUint(dst, x.Version)
}

func (d *decoder) exchange() *Exchange {
	x := &Exchange{VHost: d.Text(), Name: d.Text(), Type: d.Text()}
	d.flags(&x.Durable, &x.AutoDelete, &x.Internal)
	x.Args = d.table()
	x.Version = d.Uint()
	return x
}

func (q *Queue) appendTo(dst []byte) []byte {
	dst = fields.AppendUint(dst, uint64(q.ID))
	dst = fields.AppendString(dst, q.VHost)
	dst = fields.AppendString(dst, q.Name)
	// The bits of Keeper are newer than the others: where they are not, they are 0.
	dst = appendFlags(dst, q.Durable, q.Exclusive, q.AutoDelete, q.Keeper == KeepsDelayed, q.Keeper == KeepsRecent, q.Keeper == KeepsSeen)
	dst = appendTable(dst, q.Args)
	dst = fields.AppendUint(dst, uint64(q.Group))
	dst = fields.AppendUint(dst, uint64(q.Owner))
	return fields.AppendUint(dst, q.OwnerConn)
}

func (d *decoder) queue() *Queue {
	q := &Queue{ID: mq.QueueID(d.Uint()), VHost: d.Text(), Name: d.Text()}
	var delayed, recent, seen bool
	d.flags(&q.Durable, &q.Exclusive, &q.AutoDelete, &delayed, &recent, &seen)
	switch {
	case delayed:
		q.Keeper = KeepsDelayed
	case recent:
		q.Keeper = KeepsRecent
	case seen:
		q.Keeper = KeepsSeen
	}
	q.Args = d.table()
	q.Group = mq.GroupID(d.Uint())
	q.Owner = mq.SessionID(d.Uint())
	q.OwnerConn = d.Uint()
	return q
}

func (b *Binding) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, b.VHost)
	dst = fields.AppendString(dst, b.Source)
	dst = fields.AppendString(dst, b.Destination)
	dst = appendFlags(dst, b.ToExchange)
	dst = fields.AppendString(dst, b.Key)
	return appendTable(dst, b.Args)
}

func (d *decoder) binding() *Binding {
	b := &Binding{VHost: d.Text(), Source: d.Text(), Destination: d.Text()}
	d.flags(&b.ToExchange)
	b.Key = d.Text()
	b.Args = sortedArgs(d.table())
	return b
}

func (n *Node) appendTo(dst []byte) []byte {
	dst = fields.AppendUint(dst, uint64(n.Number))
	dst = fields.AppendString(dst, string(n.ID))
	dst = fields.AppendString(dst, n.Name)
	return fields.AppendString(dst, n.Addr)
}

func (d *decoder) node() *Node {
	return &Node{Number: uint32(d.Uint()), ID: mq.NodeID(d.Text()), Name: d.Text(), Addr: d.Text()}
}

func (g *Group) appendTo(dst []byte) []byte {
	return appendNodeIDs(fields.AppendUint(dst, uint64(g.ID)), g.Replicas)
}

func (d *decoder) group() *Group {
	return &Group{ID: mq.GroupID(d.Uint()), Replicas: d.nodeIDs()}
}

func (s *Setting) appendTo(dst []byte) []byte {
	return fields.AppendString(fields.AppendString(dst, s.Name), s.Value)
}

func (d *decoder) setting() *Setting { return &Setting{Name: d.Text(), Value: d.Text()} }

func (s *session) appendTo(dst []byte) []byte {
	return fields.AppendUint(fields.AppendString(dst, string(s.Node)), uint64(s.ID))
}

func (d *decoder) session() *session {
	return &session{Node: mq.NodeID(d.Text()), ID: mq.SessionID(d.Uint())}
}
