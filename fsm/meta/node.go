package meta

import (
	"slices"

	"warren/mq"
)

func (s *State) clusterInit(op ClusterInit) Result {
	if s.clusterID != "" || op.ClusterID == "" {
		return Result{Value: false}
	}
	s.clusterID = op.ClusterID
	for i, replicas := range op.Groups {
		s.groupSet(GroupSet{ID: mq.GroupID(i + 1), Replicas: replicas})
	}
	s.vhostPut(VHostPut{Name: op.DefaultVHost})
	s.userPut(UserPut{Name: op.DefaultUser, PasswordHash: op.DefaultPass, Tags: []string{"administrator"}})
	s.permissionSet(PermissionSet{User: op.DefaultUser, VHost: op.DefaultVHost, Configure: ".*", Write: ".*", Read: ".*"})
	return Result{Value: true}
}

func (s *State) nodePut(op NodePut) Result {
	old, ok := s.nodes.get([]byte(op.ID))
	n := &Node{ID: op.ID, Name: op.Name, Addr: op.Addr}
	switch {
	case !ok:
		s.nodesUsed++
		n.Number = s.nodesUsed
	case old.Name == op.Name && old.Addr == op.Addr:
		return Result{Value: old.Number}
	default:
		n.Number = old.Number
	}
	s.nodes.put([]byte(op.ID), n)
	s.changed(NodesChanged{})
	return Result{Value: n.Number}
}

func (s *State) nodeRemove(op NodeRemove) Result {
	if _, ok := s.nodes.get([]byte(op.ID)); !ok {
		return Result{Value: false}
	}
	if old, ok := s.sessions.get([]byte(op.ID)); ok {
		s.endSession(old)
	}
	s.nodes.delete([]byte(op.ID))
	s.changed(NodesChanged{})
	return Result{Value: true}
}

func (s *State) sessionOpen(op SessionOpen) Result {
	if _, ok := s.nodes.get([]byte(op.Node)); !ok {
		return refuse(mq.Errorf(mq.InternalError, "node '%s' is not a member of the cluster", op.Node))
	}
	if s.opened {
		// A session is named by its entry, so an entry can open only one. The
		// next one comes in an entry of its own.
		return Result{Stale: true}
	}
	s.opened = true
	if old, ok := s.sessions.get([]byte(op.Node)); ok {
		s.endSession(old)
	}
	n := &session{Node: op.Node, ID: mq.SessionID(s.index)}
	s.sessions.put([]byte(n.Node), n)
	s.sessionIDs.put(numberKey(uint64(n.ID)), n)
	s.changed(SessionOpened{n.Node, n.ID})
	return Result{Value: n.ID}
}

func (s *State) sessionEnd(op SessionEnd) Result {
	old, ok := s.sessionIDs.get(numberKey(uint64(op.Session)))
	if !ok {
		return Result{Value: false}
	}
	s.endSession(old)
	return Result{Value: true}
}

// endSession ends a session and deletes the queues in its memory.
func (s *State) endSession(old *session) {
	for _, q := range slices.Collect(s.queueGroups.root.of(mq.LocalGroup(old.ID))) {
		s.removeQueue(q)
	}
	s.sessions.delete([]byte(old.Node))
	s.sessionIDs.delete(numberKey(uint64(old.ID)))
	s.changed(SessionEnded{old.Node, old.ID})
}

func (s *State) groupSet(op GroupSet) Result {
	if _, local := op.ID.Local(); local || op.ID == 0 {
		return refuse(mq.Errorf(mq.InternalError, "%d is not the number of a queue group", op.ID))
	}
	key := numberKey(uint64(op.ID))
	if old, ok := s.groups.get(key); ok && slices.Equal(old.Replicas, op.Replicas) {
		return Result{Value: false}
	}
	s.groups.put(key, &Group{ID: op.ID, Replicas: slices.Clone(op.Replicas)})
	s.changed(GroupsChanged{})
	return Result{Value: true}
}

func (s *State) settingPut(op SettingPut) Result {
	if old, ok := s.settings.get([]byte(op.Name)); ok && old.Value == op.Value {
		return Result{Value: false}
	}
	s.settings.put([]byte(op.Name), (*Setting)(&op))
	s.changed(SettingsChanged{})
	return Result{Value: true}
}

func (s *State) settingDelete(op SettingDelete) Result {
	if _, ok := s.settings.get([]byte(op.Name)); !ok {
		return Result{Value: false}
	}
	s.settings.delete([]byte(op.Name))
	s.changed(SettingsChanged{})
	return Result{Value: true}
}
