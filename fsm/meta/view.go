package meta

import (
	"iter"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"warren/mq"
)

// View is the metadata as it was after one entry of the log. It never changes
// and is safe for concurrent use; so are the records it hands out, which must
// not be written to.
type View struct {
	index     uint64
	nowMs     int64
	clusterID string
	nodesUsed uint32 // the highest node number ever given out

	vhosts      *iradix.Tree[*VHost]
	users       *iradix.Tree[*User]
	permissions *iradix.Tree[*Permission]
	exchanges   *iradix.Tree[*Exchange]
	queues      *iradix.Tree[*Queue]
	queueIDs    *numberedNode // keepers too
	keepers     *iradix.Tree[*Queue]
	queueGroups *numberedNode
	bindings    *iradix.Tree[*Binding] // by source
	bindingsTo  *iradix.Tree[*Binding] // by destination
	nodes       *iradix.Tree[*Node]
	sessions    *iradix.Tree[*session] // by node
	sessionIDs  *iradix.Tree[*session]
	groups      *iradix.Tree[*Group]
	settings    *iradix.Tree[*Setting]

	topicPermissions *iradix.Tree[*TopicPermission]
	policies         *iradix.Tree[*Policy]
	tracing          *iradix.Tree[*Tracing]
}

// Index is the log index of the last entry that is in the view.
func (v *View) Index() uint64 { return v.index }

// NowMs is the latest time that a leader has put into the log.
func (v *View) NowMs() int64 { return v.nowMs }

// Initialized reports whether ClusterInit has been applied.
func (v *View) Initialized() bool { return v.clusterID != "" }

// ClusterID names the cluster; "" before ClusterInit.
func (v *View) ClusterID() string { return v.clusterID }

// VHost returns a vhost, nil if there is none.
func (v *View) VHost(name string) *VHost { return find(v.vhosts, []byte(name)) }

// VHosts goes through the vhosts by name.
func (v *View) VHosts() iter.Seq[*VHost] { return each(v.vhosts.Root(), nil) }

// User returns a user, nil if there is none.
func (v *View) User(name string) *User { return find(v.users, []byte(name)) }

// Users goes through the users by name.
func (v *View) Users() iter.Seq[*User] { return each(v.users.Root(), nil) }

// Permission returns what a user may do in a vhost, nil if it has no access.
func (v *View) Permission(user, vhost string) *Permission {
	return find(v.permissions, permissionKey(user, vhost))
}

// Permissions goes through all permissions by user and vhost.
func (v *View) Permissions() iter.Seq[*Permission] { return each(v.permissions.Root(), nil) }

// TopicPermission returns which routing keys a user may use at an exchange,
// nil if all.
func (v *View) TopicPermission(user, vhost, exchange string) *TopicPermission {
	if v.topicPermissions.Len() == 0 {
		return nil // a publish need not even make the key
	}
	return find(v.topicPermissions, topicPermissionKey(user, vhost, exchange))
}

// TopicPermissions goes through all topic permissions by user, vhost and exchange.
func (v *View) TopicPermissions() iter.Seq[*TopicPermission] {
	return each(v.topicPermissions.Root(), nil)
}

// Policy returns a policy, nil if there is none.
func (v *View) Policy(vhost, name string) *Policy {
	return find(v.policies, policyKey(vhost, false, name))
}

// Policies goes through the policies of a vhost by name.
func (v *View) Policies(vhost string) iter.Seq[*Policy] {
	return each(v.policies.Root(), policyPrefix(vhost, false))
}

// OperatorPolicy returns an operator policy, nil if there is none.
func (v *View) OperatorPolicy(vhost, name string) *Policy {
	return find(v.policies, policyKey(vhost, true, name))
}

// OperatorPolicies goes through the operator policies of a vhost by name.
func (v *View) OperatorPolicies(vhost string) iter.Seq[*Policy] {
	return each(v.policies.Root(), policyPrefix(vhost, true))
}

// Tracing reports whether a vhost's messages are traced.
func (v *View) Tracing(vhost string) bool { return find(v.tracing, []byte(vhost)) != nil }

// Exchange returns an exchange, nil if there is none.
func (v *View) Exchange(vhost, name string) *Exchange {
	return find(v.exchanges, nameKey(vhost, name))
}

// EachExchange goes through the exchanges of a vhost by name.
func (v *View) EachExchange(vhost string) iter.Seq[*Exchange] {
	return each(v.exchanges.Root(), vhostPrefix(vhost))
}

// Queue returns a queue by its name, nil if there is none.
func (v *View) Queue(vhost, name string) *Queue { return find(v.queues, nameKey(vhost, name)) }

// QueueByID returns a queue, nil if it is gone.
func (v *View) QueueByID(id mq.QueueID) *Queue { return v.queueIDs.find(numberedKey{id: id}) }

// EachQueue goes through the queues of a vhost by name.
func (v *View) EachQueue(vhost string) iter.Seq[*Queue] {
	return each(v.queues.Root(), vhostPrefix(vhost))
}

// QueuesOf goes through the queues that live in a group by age.
func (v *View) QueuesOf(g mq.GroupID) iter.Seq[*Queue] {
	return v.queueGroups.of(g)
}

// QueueCount is the number of queues in all vhosts.
func (v *View) QueueCount() int { return v.queues.Len() }

// ExchangeCount is the number of exchanges in all vhosts.
func (v *View) ExchangeCount() int { return v.exchanges.Len() }

// BindingCount is the number of bindings in all vhosts, without the implicit
// ones of default exchanges.
func (v *View) BindingCount() int { return v.bindings.Len() }

// BindingsFrom goes through the bindings of a source exchange: those to
// queues by queue name, then those to exchanges. The default exchange's
// implicit bindings are not among them.
func (v *View) BindingsFrom(vhost, exchange string) iter.Seq[*Binding] {
	return each(v.bindings.Root(), fromPrefix(vhost, exchange))
}

// Bound reports whether there is a binding with this identity.
func (v *View) Bound(b Binding) bool {
	b.Args = sortedArgs(b.Args)
	return find(v.bindings, fromKey(&b)) != nil
}

// BindingsToQueue goes through the bindings of a destination queue.
func (v *View) BindingsToQueue(vhost, queue string) iter.Seq[*Binding] {
	return each(v.bindingsTo.Root(), toPrefix(vhost, queue, false))
}

// BindingsToExchange goes through the bindings of a destination exchange.
func (v *View) BindingsToExchange(vhost, exchange string) iter.Seq[*Binding] {
	return each(v.bindingsTo.Root(), toPrefix(vhost, exchange, true))
}

// EachBinding goes through the bindings of a vhost by source.
func (v *View) EachBinding(vhost string) iter.Seq[*Binding] {
	return each(v.bindings.Root(), vhostPrefix(vhost))
}

// Nodes returns the nodes by number.
func (v *View) Nodes() []*Node {
	nodes := slices.Collect(each(v.nodes.Root(), nil))
	slices.SortFunc(nodes, func(a, b *Node) int { return int(a.Number) - int(b.Number) })
	return nodes
}

// NodeByID returns a node, nil if it is not a member.
func (v *View) NodeByID(id mq.NodeID) *Node { return find(v.nodes, []byte(id)) }

// Session returns the current session of a node, and whether it has one.
func (v *View) Session(node mq.NodeID) (mq.SessionID, bool) {
	if s := find(v.sessions, []byte(node)); s != nil {
		return s.ID, true
	}
	return 0, false
}

// SessionNode returns the node whose current session id is, and whether it is
// anybody's: a session that has ended belongs to nobody.
func (v *View) SessionNode(id mq.SessionID) (mq.NodeID, bool) {
	if s := find(v.sessionIDs, numberKey(uint64(id))); s != nil {
		return s.Node, true
	}
	return "", false
}

// Groups returns the Raft queue groups by id.
func (v *View) Groups() []Group {
	groups := make([]Group, 0, v.groups.Len())
	for g := range each(v.groups.Root(), nil) {
		groups = append(groups, *g)
	}
	return groups
}

// Group returns a Raft queue group, nil if there is none.
func (v *View) Group(id mq.GroupID) *Group { return find(v.groups, numberKey(uint64(id))) }

// Setting returns a cluster setting, and whether it is set.
func (v *View) Setting(name string) (string, bool) {
	if s := find(v.settings, []byte(name)); s != nil {
		return s.Value, true
	}
	return "", false
}

// Settings goes through the cluster settings by name.
func (v *View) Settings() iter.Seq[*Setting] { return each(v.settings.Root(), nil) }

func find[T any](t *iradix.Tree[*T], key []byte) *T {
	v, _ := t.Get(key)
	return v
}
