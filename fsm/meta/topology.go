package meta

import "warren/mq"

func (s *State) exchangeDeclare(op ExchangeDeclare) Result {
	if err := checkName("exchange", op.Name); err != nil {
		return refuse(err)
	}
	if _, ok := s.vhosts.get([]byte(op.VHost)); !ok {
		return refuse(noVHost(op.VHost))
	}
	if x, ok := s.exchanges.get(nameKey(op.VHost, op.Name)); ok {
		if err := x.Equivalent(&op); err != nil {
			return refuse(err)
		}
		return Result{Value: false}
	}
	x := &Exchange{
		VHost: op.VHost, Name: op.Name, Type: op.Type,
		Durable: op.Durable, AutoDelete: op.AutoDelete, Internal: op.Internal,
		Args: op.Args, Version: s.stamp,
	}
	x.apply(s.policiesOf(x.VHost).forExchange(x.Name))
	s.exchanges.put(nameKey(x.VHost, x.Name), x)
	return Result{Value: true}
}

func (s *State) exchangeDelete(op ExchangeDelete) Result {
	x, ok := s.exchanges.get(nameKey(op.VHost, op.Name))
	if !ok {
		return Result{Value: false}
	}
	if op.IfUnused && s.bindings.any(fromPrefix(op.VHost, op.Name)) {
		return refuse(mq.Errorf(mq.PreconditionFailed, "exchange '%s' in vhost '%s' in use", op.Name, op.VHost))
	}
	s.removeExchange(x)
	return Result{Value: true}
}

func (s *State) removeExchange(x *Exchange) {
	s.exchanges.delete(nameKey(x.VHost, x.Name))
	s.removeKeeper(x)
	for _, b := range s.bindings.list(fromPrefix(x.VHost, x.Name)) {
		s.removeBinding(b)
	}
	for _, b := range s.bindingsTo.list(toPrefix(x.VHost, x.Name, true)) {
		s.removeBinding(b)
	}
}

func (s *State) queueDeclare(op QueueDeclare) Result {
	if err := checkName("queue", op.Name); err != nil {
		return refuse(err)
	}
	if _, ok := s.vhosts.get([]byte(op.VHost)); !ok {
		return refuse(noVHost(op.VHost))
	}
	if q, ok := s.queues.get(nameKey(op.VHost, op.Name)); ok {
		if err := q.Equivalent(&op); err != nil {
			return refuse(err)
		}
		return Result{Value: Declared{Queue: q}}
	}
	if err := s.checkHome(op.Group, op.Owner); err != nil {
		return refuse(err)
	}
	q := &Queue{
		ID: mq.QueueID(s.stamp), VHost: op.VHost, Name: op.Name,
		Durable: op.Durable, Exclusive: op.Exclusive, AutoDelete: op.AutoDelete,
		Args: op.Args, Group: op.Group, Owner: op.Owner, OwnerConn: op.OwnerConn,
	}
	q.apply(s.policiesOf(q.VHost).forQueue(q.Name, q.Args))
	s.indexQueue(q)
	s.changed(QueueCreated{q})
	return Result{Value: Declared{Queue: q, Created: true}}
}

// checkHome makes sure that a new queue has a place to live: the memory of a
// session that has not ended, or a group that exists.
func (s *State) checkHome(g mq.GroupID, owner mq.SessionID) *mq.Error {
	if in, local := g.Local(); local || owner != 0 {
		if _, ok := s.sessionIDs.get(numberKey(uint64(owner))); !ok || !local || in != owner {
			return &mq.Error{Code: mq.InternalError, Text: "the node's session has ended", ChannelOnly: true}
		}
		return nil
	}
	if _, ok := s.groups.get(numberKey(uint64(g))); !ok {
		err := mq.Errorf(mq.InternalError, "there is no queue group %d", g)
		err.ChannelOnly = true
		return err
	}
	return nil
}

func (s *State) indexQueue(q *Queue) {
	s.names(q).put(nameKey(q.VHost, q.Name), q)
	s.queueIDs.put(numberedKey{id: q.ID}, q)
	s.queueGroups.put(numberedKey{q.Group, q.ID}, q)
}

// names is the table that has q by its name.
func (s *State) names(q *Queue) *table[*Queue] {
	if q.Keeper != NoKeeper {
		return &s.keepers
	}
	return &s.queues
}

func (s *State) queueDelete(op QueueDelete) Result {
	var q *Queue
	if op.IfID != 0 {
		q = s.queueIDs.root.find(numberedKey{id: op.IfID})
	} else {
		q, _ = s.queues.get(nameKey(op.VHost, op.Name))
	}
	if q == nil {
		return Result{Value: false}
	}
	s.removeQueue(q)
	return Result{Value: true}
}

func (s *State) removeQueue(q *Queue) {
	s.names(q).delete(nameKey(q.VHost, q.Name))
	s.queueIDs.delete(numberedKey{id: q.ID})
	s.queueGroups.delete(numberedKey{q.Group, q.ID})
	if q.Keeper == NoKeeper { // else a client's queue may have its name
		for _, b := range s.bindingsTo.list(toPrefix(q.VHost, q.Name, false)) {
			s.removeBinding(b)
		}
	}
	s.changed(QueueDeleted{q})
}

func (s *State) bind(b *Binding) Result {
	// RabbitMQ names the source first when both ends are missing.
	if _, ok := s.exchanges.get(nameKey(b.VHost, b.Source)); !ok {
		return refuse(NoExchange(b.VHost, b.Source))
	}
	if b.ToExchange {
		if _, ok := s.exchanges.get(nameKey(b.VHost, b.Destination)); !ok {
			return refuse(NoExchange(b.VHost, b.Destination))
		}
	} else if _, ok := s.queues.get(nameKey(b.VHost, b.Destination)); !ok {
		return refuse(NoQueue(b.VHost, b.Destination))
	}
	if _, ok := s.bindings.get(fromKey(b)); ok {
		return Result{Value: false}
	}
	s.indexBinding(b)
	s.touch(b)
	return Result{Value: true}
}

func (s *State) indexBinding(b *Binding) {
	s.bindings.put(fromKey(b), b)
	s.bindingsTo.put(toKey(b), b)
}

func (s *State) unbind(b *Binding) Result {
	old, ok := s.bindings.get(fromKey(b))
	if !ok {
		return Result{Value: false}
	}
	s.removeBinding(old)
	return Result{Value: true}
}

func (s *State) removeBinding(b *Binding) {
	s.bindings.delete(fromKey(b))
	s.bindingsTo.delete(toKey(b))
	if x := s.touch(b); x != nil && x.AutoDelete {
		s.orphans = append(s.orphans, x)
	}
}

// touch notes in the source exchange that its bindings have changed. It
// returns the exchange, nil if that is gone.
func (s *State) touch(b *Binding) *Exchange {
	key := nameKey(b.VHost, b.Source)
	x, ok := s.exchanges.get(key)
	if !ok {
		return nil
	}
	if x.Version != s.stamp {
		next := *x
		next.Version = s.stamp
		x = &next
		s.exchanges.put(key, x)
	}
	return x
}

// deleteOrphans deletes the auto-delete exchanges that lost their last binding
// as a source (AMQP 0-9-1 §1.6.2.5, in RabbitMQ's reading), which may orphan
// more of them.
func (s *State) deleteOrphans() {
	for len(s.orphans) > 0 {
		x := s.orphans[len(s.orphans)-1]
		s.orphans = s.orphans[:len(s.orphans)-1]
		if _, ok := s.exchanges.get(nameKey(x.VHost, x.Name)); ok && !s.bindings.any(fromPrefix(x.VHost, x.Name)) {
			s.removeExchange(x)
		}
	}
}

// NoQueue is what a client hears of a queue that is not there.
func NoQueue(vhost, name string) *mq.Error {
	return mq.Errorf(mq.NotFound, "no queue '%s' in vhost '%s'", name, vhost)
}

// NoExchange is what a client hears of an exchange that is not there.
func NoExchange(vhost, name string) *mq.Error {
	return mq.Errorf(mq.NotFound, "no exchange '%s' in vhost '%s'", name, vhost)
}
