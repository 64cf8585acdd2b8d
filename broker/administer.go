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
)

// Administer checks a change that an operator wants, and commits it. When it
// returns, every live node has applied it; changed says whether there was
// something to change.
func (b *Broker) Administer(ctx context.Context, op meta.Op) (changed bool, err error) {
	if err := checkAdministration(op); err != nil {
		return false, err
	}
	r, err := propose(ctx, b, op)
	if err != nil {
		return false, err
	}
	changed, _ = r.Value.(bool)
	return changed, nil
}

// checkAdministration checks what the replicated state takes unchecked.
func checkAdministration(op meta.Op) error {
	switch op := op.(type) {
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
