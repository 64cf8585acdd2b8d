package meta

import (
	"warren/mq"

	"warren/internal/fields"
)

// Op is one change of the metadata. The zero value of each is encodable.
type Op interface {
	code() opcode
	appendTo(dst []byte) []byte
}

// Operations on the cluster.
type (
	// ClusterInit makes the cluster: its name, its groups, the first vhost
	// with its exchanges and the first user. Only the first one ever counts.
	ClusterInit struct {
		ClusterID    string
		Groups       [][]mq.NodeID // the replicas of groups 1, 2, …
		DefaultUser  string
		DefaultPass  string // hash, see HashPassword
		DefaultVHost string
	}
	// NodePut adds a node or notes its new name and address. The result's
	// Value is its number (uint32).
	NodePut struct {
		ID         mq.NodeID
		Name, Addr string
	}
	// NodeRemove ends a node's session and forgets the node.
	NodeRemove struct{ ID mq.NodeID }
	// SessionOpen begins a run of a node and ends the one before. The
	// result's Value is the mq.SessionID.
	SessionOpen struct{ Node mq.NodeID }
	// SessionEnd ends a run of a node: the queues in its memory go, with
	// their bindings.
	SessionEnd struct{ Session mq.SessionID }
	// GroupSet adds a group or notes who replicates it now.
	GroupSet struct {
		ID       mq.GroupID
		Replicas []mq.NodeID
	}
	// SettingPut sets a cluster setting.
	SettingPut struct{ Name, Value string }
	// SettingDelete removes a cluster setting.
	SettingDelete struct{ Name string }
)

// Operations on who may do what. Deletes of what is not there succeed.
type (
	// VHostPut adds a vhost with the predeclared exchanges, or notes its new properties.
	VHostPut struct {
		Name, Description string
		Tags              []string
		DefaultQueueType  string
	}
	// VHostDelete removes a vhost and all that is in it.
	VHostDelete struct{ Name string }
	// UserPut adds or replaces a user.
	UserPut struct {
		Name         string
		PasswordHash string
		Algorithm    string
		Tags         []string
	}
	// UserDelete removes a user and its permissions.
	UserDelete struct{ Name string }
	// PermissionSet says what a user may do in a vhost. The proposer has
	// checked that the regular expressions compile.
	PermissionSet struct {
		User, VHost            string
		Configure, Write, Read string
	}
	// PermissionClear takes a user's access to a vhost away.
	PermissionClear struct{ User, VHost string }
	// UserAdd adds a user that must not be there yet.
	UserAdd UserPut
	// UserPassword gives a user that is there another password.
	UserPassword struct{ Name, PasswordHash, Algorithm string }
	// UserTags gives a user that is there other tags.
	UserTags struct {
		Name string
		Tags []string
	}
	// TopicPermissionSet says which routing keys a user may use at a topic
	// exchange. The proposer has checked that the regular expressions compile.
	TopicPermissionSet TopicPermission
	// TopicPermissionClear takes that back, for one exchange or all of a vhost.
	TopicPermissionClear struct {
		User, VHost, Exchange string
		All                   bool
	}
	// PolicySet adds or replaces a policy. The proposer has checked all of it.
	PolicySet struct{ Policy }
	// PolicyClear removes a policy.
	PolicyClear struct {
		VHost, Name string
		Operator    bool
	}
	// TracingSet turns the tracing of a vhost on or off.
	TracingSet struct {
		VHost string
		On    bool
	}
)

// Operations on the topology of a vhost. The result's Value of a delete, bind
// or unbind is a bool: whether it changed anything.
type (
	// ExchangeDeclare adds an exchange; one that is there must be equivalent.
	ExchangeDeclare struct {
		VHost, Name, Type             string
		Durable, AutoDelete, Internal bool
		Args                          mq.Table
	}
	// ExchangeDelete removes an exchange and the bindings from and to it.
	ExchangeDelete struct {
		VHost, Name string
		IfUnused    bool
	}
	// QueueDeclare adds a queue; one that is there must be equivalent. The
	// result's Value is a Declared. Owner is set for a queue in a node's
	// memory, and Group is then mq.LocalGroup(Owner).
	QueueDeclare struct {
		VHost, Name                    string
		Durable, Exclusive, AutoDelete bool
		Args                           mq.Table
		Group                          mq.GroupID
		Owner                          mq.SessionID
		OwnerConn                      uint64
	}
	// QueueDelete removes a queue and its bindings. With IfID it removes only
	// that queue and never a successor of the same name; then VHost and Name
	// may be empty.
	QueueDelete struct {
		VHost, Name string
		IfID        mq.QueueID
	}
	// Bind adds a binding.
	Bind struct{ Binding }
	// Unbind removes a binding.
	Unbind struct{ Binding }
)

func (o ClusterInit) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, o.ClusterID)
	dst = fields.AppendUint(dst, uint64(len(o.Groups)))
	for _, replicas := range o.Groups {
		dst = appendNodeIDs(dst, replicas)
	}
	dst = fields.AppendString(dst, o.DefaultUser)
	dst = fields.AppendString(dst, o.DefaultPass)
	return fields.AppendString(dst, o.DefaultVHost)
}

func (d *decoder) clusterInit() ClusterInit {
	o := ClusterInit{ClusterID: d.Text()}
	for range d.Count() {
		o.Groups = append(o.Groups, d.nodeIDs())
	}
	o.DefaultUser, o.DefaultPass, o.DefaultVHost = d.Text(), d.Text(), d.Text()
	return o
}

func (o NodePut) appendTo(dst []byte) []byte {
	return fields.AppendString(fields.AppendString(fields.AppendString(dst, string(o.ID)), o.Name), o.Addr)
}

func (o NodeRemove) appendTo(dst []byte) []byte  { return fields.AppendString(dst, string(o.ID)) }
func (o SessionOpen) appendTo(dst []byte) []byte { return fields.AppendString(dst, string(o.Node)) }
func (o SessionEnd) appendTo(dst []byte) []byte  { return fields.AppendUint(dst, uint64(o.Session)) }

func (o GroupSet) appendTo(dst []byte) []byte { return (*Group)(&o).appendTo(dst) }

func (o SettingPut) appendTo(dst []byte) []byte    { return (*Setting)(&o).appendTo(dst) }
func (o SettingDelete) appendTo(dst []byte) []byte { return fields.AppendString(dst, o.Name) }

func (o VHostPut) appendTo(dst []byte) []byte      { return (*VHost)(&o).appendTo(dst) }
func (o VHostDelete) appendTo(dst []byte) []byte   { return fields.AppendString(dst, o.Name) }
func (o UserPut) appendTo(dst []byte) []byte       { return (*User)(&o).appendTo(dst) }
func (o UserDelete) appendTo(dst []byte) []byte    { return fields.AppendString(dst, o.Name) }
func (o PermissionSet) appendTo(dst []byte) []byte { return (*Permission)(&o).appendTo(dst) }
func (o PermissionClear) appendTo(dst []byte) []byte {
	return fields.AppendString(fields.AppendString(dst, o.User), o.VHost)
}

func (o UserAdd) appendTo(dst []byte) []byte { return (*User)(&o).appendTo(dst) }

func (o UserPassword) appendTo(dst []byte) []byte {
	return fields.AppendString(fields.AppendString(fields.AppendString(dst, o.Name), o.PasswordHash), o.Algorithm)
}

func (o UserTags) appendTo(dst []byte) []byte {
	return appendStrings(fields.AppendString(dst, o.Name), o.Tags)
}

func (o TopicPermissionSet) appendTo(dst []byte) []byte { return (*TopicPermission)(&o).appendTo(dst) }

func (o TopicPermissionClear) appendTo(dst []byte) []byte {
	dst = fields.AppendString(fields.AppendString(dst, o.User), o.VHost)
	return appendFlags(fields.AppendString(dst, o.Exchange), o.All)
}

func (d *decoder) topicPermissionClear() TopicPermissionClear {
	o := TopicPermissionClear{User: d.Text(), VHost: d.Text(), Exchange: d.Text()}
	d.flags(&o.All)
	return o
}

func (o PolicySet) appendTo(dst []byte) []byte { return o.Policy.appendTo(dst) }

func (o PolicyClear) appendTo(dst []byte) []byte {
	return appendFlags(fields.AppendString(fields.AppendString(dst, o.VHost), o.Name), o.Operator)
}

func (d *decoder) policyClear() PolicyClear {
	o := PolicyClear{VHost: d.Text(), Name: d.Text()}
	d.flags(&o.Operator)
	return o
}

func (o TracingSet) appendTo(dst []byte) []byte {
	return appendFlags(fields.AppendString(dst, o.VHost), o.On)
}

func (d *decoder) tracingSet() TracingSet {
	o := TracingSet{VHost: d.Text()}
	d.flags(&o.On)
	return o
}

func (o ExchangeDeclare) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, o.VHost)
	dst = fields.AppendString(dst, o.Name)
	dst = fields.AppendString(dst, o.Type)
	dst = appendFlags(dst, o.Durable, o.AutoDelete, o.Internal)
	return appendTable(dst, o.Args)
}

func (d *decoder) exchangeDeclare() ExchangeDeclare {
	o := ExchangeDeclare{VHost: d.Text(), Name: d.Text(), Type: d.Text()}
	d.flags(&o.Durable, &o.AutoDelete, &o.Internal)
	o.Args = d.table()
	return o
}

func (o ExchangeDelete) appendTo(dst []byte) []byte {
	return appendFlags(fields.AppendString(fields.AppendString(dst, o.VHost), o.Name), o.IfUnused)
}

func (d *decoder) exchangeDelete() ExchangeDelete {
	o := ExchangeDelete{VHost: d.Text(), Name: d.Text()}
	d.flags(&o.IfUnused)
	return o
}

func (o QueueDeclare) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, o.VHost)
	dst = fields.AppendString(dst, o.Name)
	dst = appendFlags(dst, o.Durable, o.Exclusive, o.AutoDelete)
	dst = appendTable(dst, o.Args)
	dst = fields.AppendUint(dst, uint64(o.Group))
	dst = fields.AppendUint(dst, uint64(o.Owner))
	return fields.AppendUint(dst, o.OwnerConn)
}

func (d *decoder) queueDeclare() QueueDeclare {
	o := QueueDeclare{VHost: d.Text(), Name: d.Text()}
	d.flags(&o.Durable, &o.Exclusive, &o.AutoDelete)
	o.Args = d.table()
	o.Group = mq.GroupID(d.Uint())
	o.Owner = mq.SessionID(d.Uint())
	o.OwnerConn = d.Uint()
	return o
}

func (o QueueDelete) appendTo(dst []byte) []byte {
	return fields.AppendUint(fields.AppendString(fields.AppendString(dst, o.VHost), o.Name), uint64(o.IfID))
}

func (o Bind) appendTo(dst []byte) []byte   { return o.Binding.appendTo(dst) }
func (o Unbind) appendTo(dst []byte) []byte { return o.Binding.appendTo(dst) }
