package meta

import "warren/mq"

// Change is something that an entry did and that running parts of a node act
// on. What happened to exchanges and bindings is not among them: routers look
// at Exchange.Version.
type Change interface{ change() }

type (
	// QueueCreated says that a queue is there.
	QueueCreated struct{ Queue *Queue }
	// QueueChanged says that other policies count for a queue than before.
	QueueChanged struct{ Queue *Queue }
	// QueueDeleted says that a queue is gone, with its bindings.
	QueueDeleted struct{ Queue *Queue }
	// SessionOpened says that a run of a node began.
	SessionOpened struct {
		Node    mq.NodeID
		Session mq.SessionID
	}
	// SessionEnded says that a run of a node is over. The queues that it
	// owned are in QueueDeleted changes before it.
	SessionEnded struct {
		Node    mq.NodeID
		Session mq.SessionID
	}
	// NodesChanged says that a node came, went or moved.
	NodesChanged struct{}
	// GroupsChanged says that a group was added or its replicas changed.
	GroupsChanged struct{}
	// PermissionsChanged says that a user or what it may do changed.
	PermissionsChanged struct{}
	// VHostDeleted says that a vhost is gone and connections to it must go.
	VHostDeleted struct{ Name string }
	// UserDeleted says that a user is gone and its connections must go.
	UserDeleted struct{ Name string }
	// TracingChanged says that other vhosts are traced than before.
	TracingChanged struct{}
	// SettingsChanged says that a cluster setting changed.
	SettingsChanged struct{}
)

func (QueueCreated) change()       {}
func (QueueChanged) change()       {}
func (QueueDeleted) change()       {}
func (SessionOpened) change()      {}
func (SessionEnded) change()       {}
func (NodesChanged) change()       {}
func (GroupsChanged) change()      {}
func (PermissionsChanged) change() {}
func (VHostDeleted) change()       {}
func (UserDeleted) change()        {}
func (TracingChanged) change()     {}
func (SettingsChanged) change()    {}
