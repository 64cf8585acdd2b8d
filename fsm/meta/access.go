package meta

import "warren/mq"

// predeclared are the exchanges that every vhost has from its first moment
// (AMQP 0-9-1 §3.1.3, and RabbitMQ's trace exchange).
func predeclared(vhost string) []ExchangeDeclare {
	x := func(name, kind string, internal bool) ExchangeDeclare {
		return ExchangeDeclare{VHost: vhost, Name: name, Type: kind, Durable: true, Internal: internal}
	}
	return []ExchangeDeclare{
		x("", "direct", false),
		x("amq.direct", "direct", false),
		x("amq.fanout", "fanout", false),
		x("amq.topic", "topic", false),
		x("amq.headers", "headers", false),
		x("amq.match", "headers", false),
		x("amq.rabbitmq.trace", "topic", true),
	}
}

func (s *State) vhostPut(op VHostPut) Result {
	if err := checkName("vhost", op.Name); err != nil {
		return refuse(err)
	}
	_, existed := s.vhosts.get([]byte(op.Name))
	s.vhosts.put([]byte(op.Name), (*VHost)(&op))
	if !existed {
		for _, x := range predeclared(op.Name) {
			s.exchangeDeclare(x)
		}
	}
	return Result{Value: !existed}
}

func (s *State) vhostDelete(op VHostDelete) Result {
	if _, ok := s.vhosts.get([]byte(op.Name)); !ok {
		return Result{Value: false}
	}
	for _, q := range s.queues.list(vhostPrefix(op.Name)) {
		s.removeQueue(q)
	}
	for _, x := range s.exchanges.list(vhostPrefix(op.Name)) {
		s.removeExchange(x)
	}
	s.forgetAccess(op.Name)
	s.forgetPolicies(op.Name)
	s.tracing.delete([]byte(op.Name))
	s.vhosts.delete([]byte(op.Name))
	s.changed(PermissionsChanged{})
	s.changed(VHostDeleted(op))
	return Result{Value: true}
}

func (s *State) userPut(op UserPut) Result {
	if err := checkName("user", op.Name); err != nil {
		return refuse(err)
	}
	_, existed := s.users.get([]byte(op.Name))
	s.users.put([]byte(op.Name), (*User)(&op))
	s.changed(PermissionsChanged{})
	return Result{Value: !existed}
}

func (s *State) userDelete(op UserDelete) Result {
	if _, ok := s.users.get([]byte(op.Name)); !ok {
		return Result{Value: false}
	}
	s.forgetUser(op.Name)
	s.users.delete([]byte(op.Name))
	s.changed(PermissionsChanged{})
	s.changed(UserDeleted(op))
	return Result{Value: true}
}

func (s *State) permissionSet(op PermissionSet) Result {
	if _, ok := s.users.get([]byte(op.User)); !ok {
		return refuse(NoUser(op.User))
	}
	if _, ok := s.vhosts.get([]byte(op.VHost)); !ok {
		return refuse(NoVHost(op.VHost))
	}
	key := permissionKey(op.User, op.VHost)
	_, existed := s.permissions.get(key)
	s.permissions.put(key, (*Permission)(&op))
	s.changed(PermissionsChanged{})
	return Result{Value: !existed}
}

func (s *State) permissionClear(op PermissionClear) Result {
	key := permissionKey(op.User, op.VHost)
	if _, ok := s.permissions.get(key); !ok {
		return Result{Value: false}
	}
	s.permissions.delete(key)
	s.changed(PermissionsChanged{})
	return Result{Value: true}
}

func noVHost(name string) *mq.Error { return mq.Errorf(mq.NotFound, "vhost '%s' does not exist", name) }
