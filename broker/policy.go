package broker

import (
	"fmt"
	"slices"
	"strings"

	"warren/fsm/meta"
	"warren/mq"
)

// Keys of a policy are those of arguments without their "x-", and have the
// same effect; which policy counts, and how it and the arguments come together,
// is meta's (Queue.Effective). What may be in one is RabbitMQ's, as are the
// words of refusals.

// policyDefinitionMax is how many keys a policy may define.
const policyDefinitionMax = 64

// policyKey says what a key of a policy may be.
type policyKey struct {
	what     string // in a refusal
	allowed  func(v any) bool
	operator bool // operators' policies may have it too
}

func policyKeyOf(key string) (k policyKey, known bool) {
	switch key {
	case "alternate-exchange":
		return policyKey{"alternate exchange name", isName, false}, true
	case "dead-letter-exchange":
		return policyKey{"dead letter exchange name", isName, false}, true
	case "dead-letter-routing-key":
		return policyKey{"dead letter routing key", isName, false}, true
	case "dead-letter-strategy":
		return policyKey{"dead letter strategy", isAmong("at-most-once", "at-least-once"), false}, true
	case "message-ttl":
		return policyKey{"message TTL", isWithin(0, expiryMsMax), true}, true
	case "expires":
		return policyKey{"queue expiry", isWithin(1, expiryMsMax), true}, true
	case "max-length":
		return policyKey{"maximum length", isWithin(0, 1<<62), true}, true
	case "max-length-bytes":
		return policyKey{"maximum length in bytes", isWithin(0, 1<<62), true}, true
	case "max-in-memory-length", "max-in-memory-bytes":
		return policyKey{"maximum memory in bytes", isWithin(0, 1<<62), true}, true
	case "overflow":
		return policyKey{"overflow value", isAmong("drop-head", "reject-publish", "reject-publish-dlx"), true}, true
	case "delivery-limit":
		return policyKey{"delivery limit", isWithin(-1<<62, 1<<62), true}, true
	case "consumer-timeout":
		return policyKey{"consumer timeout", isWithin(0, expiryMsMax), true}, true
	case "delayed-retry-type":
		return policyKey{"delayed retry type. Must be one of: all, failed, returned, disabled", isAmong("all", "failed", "returned", "disabled"), true}, true
	case "delayed-retry-min":
		return policyKey{"delayed retry minimum delay. Must be a positive integer", isWithin(1, 1<<62), true}, true
	case "delayed-retry-max":
		return policyKey{"delayed retry maximum delay. Must be a positive integer", isWithin(1, 1<<62), true}, true
	case "queue-mode":
		return policyKey{"queue-mode value", isAmong("default", "lazy"), false}, true
	case "queue-version":
		return policyKey{"queue version", isWithin(1, 2), false}, true
	case "queue-leader-locator":
		return policyKey{"queue leader locator value", isAmong("client-local", "balanced", "random", "least-leaders"), false}, true
	}
	return policyKey{}, false
}

// CheckPolicy checks a policy before it is proposed.
func CheckPolicy(p *meta.Policy) error {
	if p.Name == "" || len(p.Name) > shortStringMax {
		return invalidPolicy("a policy's name must have 1 to %d bytes", shortStringMax)
	}
	if err := compiles(p.Pattern); err != nil {
		return invalidPolicy("pattern should be regular expression but is invalid: %v", err)
	}
	switch p.ApplyTo {
	case meta.ApplyToAll, meta.ApplyToQueues, meta.ApplyToClassic, meta.ApplyToQuorum, meta.ApplyToStreams, meta.ApplyToExchanges:
	default:
		return invalidPolicy("apply-to '%s' unrecognised; should be one of: 'queues', 'classic_queues', "+
			" 'quorum_queues', 'streams', 'exchanges', or 'all'", p.ApplyTo)
	}
	return checkDefinition(p)
}

func checkDefinition(p *meta.Policy) error {
	if len(p.Definition) == 0 {
		return invalidPolicy("no policy provided")
	}
	if len(p.Definition) > policyDefinitionMax {
		return invalidPolicy("%d keys in a policy, the limit is %d", len(p.Definition), policyDefinitionMax)
	}
	var unknown []string
	for i, f := range p.Definition {
		k, known := policyKeyOf(f.Key)
		switch {
		case slices.ContainsFunc(p.Definition[:i], func(g mq.Field) bool { return g.Key == f.Key }):
			return invalidPolicy("[%s] duplicate keys not allowed", erlang(f.Key))
		case !known || p.Operator && !k.operator:
			unknown = append(unknown, fmt.Sprintf("{%s,%s}", erlang(f.Key), erlang(f.Value)))
		case !k.allowed(f.Value):
			return invalidPolicy("%s is not a valid %s", erlang(f.Value), k.what)
		}
	}
	if len(unknown) > 0 {
		return invalidPolicy("[%s] are not recognised policy settings", strings.Join(unknown, ","))
	}
	if err := checkRetry(p.Definition); err != nil {
		return err
	}
	for _, f := range p.Definition {
		if f.Key == "alternate-exchange" {
			continue
		}
		// What no argument can ask for, no policy can: it would do nothing.
		if _, implemented := queueArg("x-" + f.Key); !implemented {
			return mq.Errorf(mq.NotImplemented, "policy key '%s' is not implemented in this version", f.Key)
		}
	}
	return nil
}

// checkRetry checks what the keys of delayed retry in a policy are together.
func checkRetry(d mq.Table) error {
	kind, _ := d.String("delayed-retry-type")
	least, hasMin := d.Int("delayed-retry-min")
	most, hasMax := d.Int("delayed-retry-max")
	switch {
	case kind != "" && kind != "disabled" && !hasMin:
		return invalidPolicy("delayed-retry-min is required when delayed-retry-type is %s", kind)
	case hasMin && hasMax && most < least:
		return invalidPolicy("delayed-retry-max (%d) must not be smaller than delayed-retry-min (%d)", most, least)
	}
	return nil
}

// invalidPolicy refuses a policy in the form that RabbitMQ gives its refusals.
func invalidPolicy(format string, args ...any) *mq.Error {
	return mq.Errorf(mq.PreconditionFailed, "Validation failed\n\n"+format+"\n", args...)
}

// erlang shows a value as RabbitMQ's refusals do.
func erlang(v any) string {
	switch v := v.(type) {
	case string:
		return "<<\"" + v + "\">>"
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = erlang(v[i])
		}
		return "[" + strings.Join(parts, ",") + "]"
	case mq.Table:
		parts := make([]string, len(v))
		for i, f := range v {
			parts[i] = erlang(f.Key) + " => " + erlang(f.Value)
		}
		return "#{" + strings.Join(parts, ",") + "}"
	case nil:
		return "null"
	}
	return fmt.Sprint(v)
}

// isName is for what is a short string on its way to a client.
func isName(v any) bool {
	s, ok := v.(string)
	return ok && len(s) <= shortStringMax
}

func isAmong(values ...string) func(any) bool {
	return func(v any) bool {
		s, ok := v.(string)
		return ok && slices.Contains(values, s)
	}
}

func isWithin(least, most int64) func(any) bool {
	return func(v any) bool {
		n, ok := mq.Int(v)
		return ok && n >= least && n <= most
	}
}

// queuesChanged hears that other policies count for queues of this group, and
// makes them count for what is in the queues at once. Only a message's time to
// live is its own: it is set when the message is routed, and a policy's
// message-ttl counts for what is published from then on (as RabbitMQ has it). A
// consumer's timeout its home knows, and tells (reschedule).
func (s *Shard) queuesChanged(recs []*meta.Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return // whoever leads later looks at the records as they are then
	}
	for _, rec := range recs {
		s.queueChanged(rec)
	}
	s.dispatch()
}

// queueChanged runs with mu held.
func (s *Shard) queueChanged(rec *meta.Queue) {
	st := s.state.Queue(rec.ID)
	q := s.lead.queues[rec.ID]
	if q == nil {
		now := rulesOf(rec)
		if now.expiresMs >= 0 || st != nil && st.Count() > 0 && now.limited() {
			s.lead.touch(s.queue(rec))
		}
		return
	}
	expiredMs := q.rules.expiresMs
	q.rec, q.rules = rec, rulesOf(rec)
	switch now := q.rules.expiresMs; {
	case now < 0:
		s.lead.expiries.lease(q, 0)
	case now != expiredMs:
		s.renew(q)
	}
	switch {
	case q.rules.maxBytes < 0:
		q.weights = nil
	case q.weights == nil: // nobody has kept count
		q.weights = s.newWeights(q)
	}
	s.lead.touch(q)
}

// queuesChanged tells the shards on this node which queues have other policies.
func (b *Broker) queuesChanged(changes []meta.Change) {
	changed := map[mq.QueueID]bool{}
	b.byGroup(changes, (*Shard).queuesChanged, func(c meta.Change) *meta.Queue {
		if c, ok := c.(meta.QueueChanged); ok {
			changed[c.Queue.ID] = true
			return c.Queue
		}
		return nil
	})
	if len(changed) > 0 {
		go b.reschedule(changed) // ends after changeWait for each consumer of them at the latest
	}
}

// byGroup tells each shard on this node of those of its queues that of picks
// from changes.
func (b *Broker) byGroup(changes []meta.Change, tell func(*Shard, []*meta.Queue), of func(meta.Change) *meta.Queue) {
	var byGroup map[mq.GroupID][]*meta.Queue
	for _, c := range changes {
		if q := of(c); q != nil {
			if byGroup == nil {
				byGroup = map[mq.GroupID][]*meta.Queue{}
			}
			byGroup[q.Group] = append(byGroup[q.Group], q)
		}
	}
	for g, recs := range byGroup {
		if s := b.Shard(g); s != nil {
			tell(s, recs)
		}
	}
}
