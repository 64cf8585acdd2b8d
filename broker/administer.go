package broker

import (
	"context"
	"fmt"
	"regexp"

	"warren/fsm/meta"
	"warren/mq"
)

// Bounds of what an operator may set.
const (
	patternBytesMax = 4096
	tagsMax         = 64
	tagBytesMax     = 255
	settingNameMax  = 300
	settingBytesMax = 64 << 10
)

// Administer checks a change that an operator wants, and commits it. When it
// returns, every live node has applied it; changed says whether there was
// something to change.
func (b *Broker) Administer(ctx context.Context, op meta.Op) (changed bool, err error) {
	if err := checkAdministration(op); err != nil {
		return false, err
	}
	ops := []meta.Op{op}
	switch op := op.(type) { // its limits go with it
	case meta.VHostDelete:
		ops = append(ops, meta.SettingDelete{Name: meta.VHostLimits(op.Name)})
	case meta.UserDelete:
		ops = append(ops, meta.SettingDelete{Name: meta.UserLimits(op.Name)})
	}
	all, err := b.Propose(ctx, ops...)
	if err != nil {
		return false, err
	}
	r := all[0]
	if err := r.Error(); err != nil {
		return false, err
	}
	changed, _ = r.Value.(bool)
	return changed, nil
}

// checkAdministration checks what the replicated state takes unchecked.
func checkAdministration(op meta.Op) error {
	switch op := op.(type) {
	case meta.UserPut:
		return firstOf(checkGiven("user", op.Name), checkTags(op.Tags))
	case meta.UserAdd:
		return firstOf(checkGiven("user", op.Name), checkTags(op.Tags))
	case meta.UserTags:
		return checkTags(op.Tags)
	case meta.VHostPut:
		return firstOf(checkGiven("vhost", op.Name), checkTags(op.Tags))
	case meta.PermissionSet:
		return firstOf(CheckPattern(op.Configure), CheckPattern(op.Write), CheckPattern(op.Read))
	case meta.TopicPermissionSet:
		return firstOf(CheckPattern(op.Write), CheckPattern(op.Read))
	case meta.PolicySet:
		return CheckPolicy(&op.Policy)
	case meta.UserPassword, meta.UserDelete, meta.VHostDelete, meta.PermissionClear, meta.TopicPermissionClear,
		meta.PolicyClear, meta.TracingSet, meta.QueueDelete:
		return nil
	case meta.SettingPut:
		return firstOf(checkSetting(op.Name), checkSettingValue(op.Value))
	case meta.SettingDelete:
		return checkSetting(op.Name)
	}
	return fmt.Errorf("%T is not for operators", op)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkGiven(kind, name string) error {
	if name == "" {
		return mq.Errorf(mq.PreconditionFailed, "%s cannot be an empty string", kind)
	}
	return nil
}

func checkTags(tags []string) error {
	if len(tags) > tagsMax {
		return mq.Errorf(mq.PreconditionFailed, "%d tags, the limit is %d", len(tags), tagsMax)
	}
	for _, t := range tags {
		if t == "" || len(t) > tagBytesMax {
			return mq.Errorf(mq.PreconditionFailed, "a tag has %d bytes, it must have 1 to %d", len(t), tagBytesMax)
		}
	}
	return nil
}

// CheckPattern checks a regular expression of a permission before it is
// proposed. They are Go's: RabbitMQ's without look-around and back references.
func CheckPattern(pattern string) error {
	if err := compiles(pattern); err != nil {
		return mq.Errorf(mq.PreconditionFailed, "invalid regular expression '%s': %v", pattern, err)
	}
	return nil
}

func compiles(pattern string) error {
	if len(pattern) > patternBytesMax {
		return fmt.Errorf("%d bytes long, the limit is %d", len(pattern), patternBytesMax)
	}
	_, err := regexp.Compile(pattern)
	return err
}

// DeleteQueueAs deletes a queue for an operator, who may delete any: its
// ready messages are counted. A queue that is gone is deleted already.
func (b *Broker) DeleteQueueAs(ctx context.Context, operator string, q *meta.Queue, ifUnused, ifEmpty bool) (uint32, error) {
	t := NewTopology(b, b, b, Identity{User: operator, VHost: q.VHost, Session: func() mq.SessionID { return 0 }})
	r, err := t.deleteQueue(ctx, q, mq.QueueDelete{Name: q.Name, IfUnused: ifUnused, IfEmpty: ifEmpty})
	return r.Messages, err
}

// checkSetting lets operators change limits and global parameters only.
func checkSetting(name string) error {
	_, global := meta.GlobalParameterName(name)
	if !global && !meta.IsLimits(name) {
		return fmt.Errorf("setting '%s' is not for operators", name)
	}
	if len(name) > settingNameMax {
		return mq.Errorf(mq.PreconditionFailed, "a name of %d bytes, the limit is %d", len(name), settingNameMax)
	}
	return nil
}

func checkSettingValue(value string) error {
	if len(value) > settingBytesMax {
		return mq.Errorf(mq.PreconditionFailed, "a value of %d bytes, the limit is %d", len(value), settingBytesMax)
	}
	return nil
}

// DeclareAs makes a queue, an exchange or a binding in a vhost for an operator,
// who may make any. A queue or exchange that is there stays as it is, whatever
// op says of it, as RabbitMQ imports definitions.
func (b *Broker) DeclareAs(ctx context.Context, operator, vhost string, op mq.Op) error {
	who := Identity{User: operator, VHost: vhost, Session: func() mq.SessionID { _, s := b.run(); return s }}
	v := b.View()
	if v.VHost(vhost) == nil {
		return meta.NoVHost(vhost)
	}
	switch op := op.(type) {
	case mq.QueueDeclare:
		if v.Queue(vhost, op.Name) != nil {
			return nil
		}
	case mq.ExchangeDeclare:
		if v.Exchange(vhost, op.Name) != nil {
			return nil
		}
	}
	t := NewTopology(b, b, b, who)
	t.access.all = true
	_, err := t.Change(ctx, op)
	return err
}
