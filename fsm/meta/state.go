package meta

import (
	"fmt"

	"warren/mq"
)

// State is the replicated state machine. It is owned by one goroutine; what
// it hands out (View, records) may go anywhere.
type State struct {
	view *View // of index, nil when something was applied since

	index     uint64
	nowMs     int64
	clusterID string
	nodesUsed uint32

	vhosts      table[*VHost]
	users       table[*User]
	permissions table[*Permission]
	exchanges   table[*Exchange]
	queues      table[*Queue]
	queueIDs    numbered
	keepers     table[*Queue] // by the names of their exchanges
	queueGroups numbered
	bindings    table[*Binding]
	bindingsTo  table[*Binding]
	nodes       table[*Node]
	sessions    table[*session]
	sessionIDs  table[*session]
	groups      table[*Group]
	settings    table[*Setting]

	topicPermissions table[*TopicPermission]
	policies         table[*Policy]
	tracing          table[*Tracing]

	// The rest is of the operation that is being applied.

	stamp   uint64 // index << 12 | number of the operation
	opened  bool   // the entry has opened a session, and its index is taken
	orphans []*Exchange
	changes []Change
}

// New returns the state before the first entry.
func New() *State {
	return &State{
		vhosts:      newTable[*VHost](),
		users:       newTable[*User](),
		permissions: newTable[*Permission](),
		exchanges:   newTable[*Exchange](),
		queues:      newTable[*Queue](),
		queueIDs:    newNumbered(),
		keepers:     newTable[*Queue](),
		queueGroups: newNumbered(),
		bindings:    newTable[*Binding](),
		bindingsTo:  newTable[*Binding](),
		nodes:       newTable[*Node](),
		sessions:    newTable[*session](),
		sessionIDs:  newTable[*session](),
		groups:      newTable[*Group](),
		settings:    newTable[*Setting](),

		topicPermissions: newTable[*TopicPermission](),
		policies:         newTable[*Policy](),
		tracing:          newTable[*Tracing](),
	}
}

// View returns the state as of now. It costs a few words, however much
// metadata there is.
func (s *State) View() *View {
	if s.view == nil {
		s.view = &View{
			index: s.index, nowMs: s.nowMs, clusterID: s.clusterID, nodesUsed: s.nodesUsed,
			vhosts: s.vhosts.freeze(), users: s.users.freeze(), permissions: s.permissions.freeze(),
			exchanges: s.exchanges.freeze(),
			queues:    s.queues.freeze(), queueIDs: s.queueIDs.freeze(), queueGroups: s.queueGroups.freeze(), keepers: s.keepers.freeze(),
			bindings: s.bindings.freeze(), bindingsTo: s.bindingsTo.freeze(),
			nodes: s.nodes.freeze(), sessions: s.sessions.freeze(), sessionIDs: s.sessionIDs.freeze(),
			groups: s.groups.freeze(), settings: s.settings.freeze(),
			topicPermissions: s.topicPermissions.freeze(), policies: s.policies.freeze(), tracing: s.tracing.freeze(),
		}
	}
	return s.view
}

// Apply applies the entry at index, which was appended in term, and returns a
// result for each of its operations and what running parts of the node must
// hear of. An error means bytes that no version of this package wrote, or an
// entry that was applied before; nothing was changed and the caller must stop.
//
// An entry that was decided in another term than it was appended in changes
// nothing, and all its operations answer ErrStale. That is safe because the
// log alone says which terms these are, so that all nodes agree; because
// nothing was promised to anybody before this answer; and because a decision
// of another term may rest on a View that later entries have overtaken: a
// proposal can outlive the loss and the return of leadership in a queue.
func (s *State) Apply(index, term uint64, entry []byte) (results []Result, changes []Change, err error) {
	if index <= s.index {
		return nil, nil, fmt.Errorf("entry %d is applied after entry %d", index, s.index)
	}
	decided, nowMs, ops, err := parseEntry(entry)
	if err != nil {
		return nil, nil, fmt.Errorf("metadata entry %d: %w", index, err)
	}
	s.view = nil
	s.index = index
	results = make([]Result, len(ops))
	if decided != term {
		for i := range results {
			results[i].Stale = true
		}
		return results, nil, nil
	}
	s.nowMs = max(s.nowMs, nowMs)
	s.opened = false
	s.changes = nil
	for i, op := range ops {
		s.stamp = index<<12 | uint64(i)
		results[i] = s.apply(op)
		s.deleteOrphans()
	}
	changes, s.changes = s.changes, nil
	return results, changes, nil
}

func (s *State) apply(op Op) Result {
	switch op := op.(type) {
	case ClusterInit:
		return s.clusterInit(op)
	case NodePut:
		return s.nodePut(op)
	case NodeRemove:
		return s.nodeRemove(op)
	case SessionOpen:
		return s.sessionOpen(op)
	case SessionEnd:
		return s.sessionEnd(op)
	case GroupSet:
		return s.groupSet(op)
	case SettingPut:
		return s.settingPut(op)
	case SettingDelete:
		return s.settingDelete(op)
	case VHostPut:
		return s.vhostPut(op)
	case VHostDelete:
		return s.vhostDelete(op)
	case UserPut:
		return s.userPut(op)
	case UserDelete:
		return s.userDelete(op)
	case PermissionSet:
		return s.permissionSet(op)
	case PermissionClear:
		return s.permissionClear(op)
	case UserAdd:
		return s.userAdd(op)
	case UserPassword:
		return s.userPassword(op)
	case UserTags:
		return s.userTags(op)
	case TopicPermissionSet:
		return s.topicPermissionSet(op)
	case TopicPermissionClear:
		return s.topicPermissionClear(op)
	case PolicySet:
		return s.policySet(op)
	case PolicyClear:
		return s.policyClear(op)
	case TracingSet:
		return s.tracingSet(op)
	case ExchangeDeclare:
		return s.exchangeDeclare(op)
	case ExchangeDeclareKeeping:
		return s.exchangeDeclareKeeping(op)
	case ExchangeDelete:
		return s.exchangeDelete(op)
	case QueueDeclare:
		return s.queueDeclare(op)
	case QueueDelete:
		return s.queueDelete(op)
	case Bind:
		return s.bind(&op.Binding)
	case Unbind:
		return s.unbind(&op.Binding)
	}
	panic(fmt.Sprintf("meta: no rule for %T", op))
}

func (s *State) changed(c Change) { s.changes = append(s.changes, c) }

// nameBytesMax is what a short string of AMQP holds; a longer name could not
// be used.
const nameBytesMax = 255

func checkName(kind, name string) *mq.Error {
	if len(name) > nameBytesMax {
		return mq.Errorf(mq.PreconditionFailed, "%s name of %d bytes is longer than %d", kind, len(name), nameBytesMax)
	}
	return nil
}

func refuse(err *mq.Error) Result { return Result{Err: err} }
