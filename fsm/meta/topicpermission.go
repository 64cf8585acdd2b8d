package meta

import "warren/internal/fields"

// TopicPermission narrows what a user may do at a topic exchange: two regular
// expressions over routing keys, in which {username} and {vhost} stand for
// the connection's. Where there is none, every key is allowed.
type TopicPermission struct {
	User, VHost, Exchange string
	Write, Read           string
}

func (p *TopicPermission) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, p.User)
	dst = fields.AppendString(dst, p.VHost)
	dst = fields.AppendString(dst, p.Exchange)
	dst = fields.AppendString(dst, p.Write)
	return fields.AppendString(dst, p.Read)
}

func (d *decoder) topicPermission() *TopicPermission {
	return &TopicPermission{User: d.Text(), VHost: d.Text(), Exchange: d.Text(), Write: d.Text(), Read: d.Text()}
}

func topicPermissionKey(user, vhost, exchange string) []byte {
	return append(topicPermissionPrefix(user, vhost), exchange...)
}

func topicPermissionPrefix(user, vhost string) []byte {
	return fields.AppendString(fields.AppendString(nil, user), vhost)
}

func (s *State) topicPermissionSet(op TopicPermissionSet) Result {
	if _, ok := s.users.get([]byte(op.User)); !ok {
		return refuse(NoUser(op.User))
	}
	if _, ok := s.vhosts.get([]byte(op.VHost)); !ok {
		return refuse(NoVHost(op.VHost))
	}
	key := topicPermissionKey(op.User, op.VHost, op.Exchange)
	_, existed := s.topicPermissions.get(key)
	s.topicPermissions.put(key, (*TopicPermission)(&op))
	s.changed(PermissionsChanged{})
	return Result{Value: !existed}
}

func (s *State) topicPermissionClear(op TopicPermissionClear) Result {
	var gone []*TopicPermission
	if op.All {
		gone = s.topicPermissions.list(topicPermissionPrefix(op.User, op.VHost))
	} else if p, ok := s.topicPermissions.get(topicPermissionKey(op.User, op.VHost, op.Exchange)); ok {
		gone = append(gone, p)
	}
	s.forgetTopicPermissions(gone)
	if len(gone) > 0 {
		s.changed(PermissionsChanged{})
	}
	return Result{Value: len(gone) > 0}
}

func (s *State) forgetTopicPermissions(gone []*TopicPermission) {
	for _, p := range gone {
		s.topicPermissions.delete(topicPermissionKey(p.User, p.VHost, p.Exchange))
	}
}

// forgetUser takes all that a user may do away. Logs from before there were
// topic permissions hold none, so that a deletion in them still means the same.
func (s *State) forgetUser(name string) {
	for _, p := range s.permissions.list(vhostPrefix(name)) {
		s.permissions.delete(permissionKey(p.User, p.VHost))
	}
	s.forgetTopicPermissions(s.topicPermissions.list(vhostPrefix(name)))
}

// forgetAccess takes away what all users may do in a vhost.
func (s *State) forgetAccess(vhost string) {
	for _, p := range s.permissions.list(nil) {
		if p.VHost == vhost {
			s.permissions.delete(permissionKey(p.User, p.VHost))
		}
	}
	for _, p := range s.topicPermissions.list(nil) {
		if p.VHost == vhost {
			s.topicPermissions.delete(topicPermissionKey(p.User, p.VHost, p.Exchange))
		}
	}
}
