package meta

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strings"

	"warren/internal/fields"
	"warren/mq"
)

// What a policy applies to, in RabbitMQ's words. There is one queue engine:
// of a queue, the declared x-queue-type decides.
const (
	ApplyToAll       = "all"
	ApplyToQueues    = "queues"
	ApplyToClassic   = "classic_queues"
	ApplyToQuorum    = "quorum_queues"
	ApplyToStreams   = "streams"
	ApplyToExchanges = "exchanges"
)

// Policy gives arguments to the queues and exchanges of a vhost whose names
// match. Of all that match, one counts: that with the highest priority, and
// among equals the first by name. Operator policies are chosen among
// themselves, and one of them may count besides.
type Policy struct {
	VHost, Name string
	Operator    bool
	Pattern     string // a regular expression; checked before it is proposed
	ApplyTo     string
	Priority    int64
	Definition  mq.Table // sorted by key; keys are without "x-"

	// pattern is Pattern, compiled when the policy is set or restored. It is
	// not part of the state's bytes.
	pattern *regexp.Regexp
}

func (p *Policy) appendTo(dst []byte) []byte {
	dst = fields.AppendString(dst, p.VHost)
	dst = fields.AppendString(dst, p.Name)
	dst = appendFlags(dst, p.Operator)
	dst = fields.AppendString(dst, p.Pattern)
	dst = fields.AppendString(dst, p.ApplyTo)
	dst = binary.AppendVarint(dst, p.Priority)
	return appendTable(dst, p.Definition)
}

func (d *decoder) policy() *Policy {
	p := &Policy{VHost: d.Text(), Name: d.Text()}
	d.flags(&p.Operator)
	p.Pattern, p.ApplyTo = d.Text(), d.Text()
	p.Priority = d.Int()
	p.Definition = sortedArgs(d.table())
	return p
}

func policyPrefix(vhost string, operator bool) []byte {
	return appendFlags(fields.AppendString(nil, vhost), operator)
}

func policyKey(vhost string, operator bool, name string) []byte {
	return append(policyPrefix(vhost, operator), name...)
}

func (s *State) policySet(op PolicySet) Result {
	if err := checkName("policy", op.Name); err != nil {
		return refuse(err)
	}
	if _, ok := s.vhosts.get([]byte(op.VHost)); !ok {
		return refuse(NoVHost(op.VHost))
	}
	p := op.Policy
	key := policyKey(p.VHost, p.Operator, p.Name)
	_, existed := s.policies.get(key)
	s.putPolicy(&p)
	s.applyPolicies(p.VHost)
	return Result{Value: !existed}
}

// putPolicy notes a policy. One whose pattern does not compile, which no
// proposer lets through, matches nothing.
func (s *State) putPolicy(p *Policy) {
	p.pattern, _ = regexp.Compile(p.Pattern)
	s.policies.put(policyKey(p.VHost, p.Operator, p.Name), p)
}

func (s *State) policyClear(op PolicyClear) Result {
	key := policyKey(op.VHost, op.Operator, op.Name)
	if _, ok := s.policies.get(key); !ok {
		return Result{Value: false}
	}
	s.policies.delete(key)
	s.applyPolicies(op.VHost)
	return Result{Value: true}
}

// byPriority is the order in which policies are asked whether they match.
func byPriority(ps []*Policy) []*Policy {
	slices.SortStableFunc(ps, func(a, b *Policy) int {
		switch {
		case a.Priority > b.Priority:
			return -1
		case a.Priority < b.Priority:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return ps
}

// policies are those of one vhost, in the order in which they are asked.
type policies struct{ users, operators []*Policy }

func (s *State) policiesOf(vhost string) policies {
	return policies{
		byPriority(s.policies.list(policyPrefix(vhost, false))),
		byPriority(s.policies.list(policyPrefix(vhost, true))),
	}
}

func firstMatch(ps []*Policy, applies func(to string) bool, name string) *Policy {
	for _, p := range ps {
		if p.pattern != nil && applies(p.ApplyTo) && p.pattern.MatchString(name) {
			return p
		}
	}
	return nil
}

func (ps policies) forQueue(name string, args mq.Table) applied {
	kind := ApplyToClassic
	if v, _ := args.String("x-queue-type"); v == "quorum" {
		kind = ApplyToQuorum
	}
	applies := func(to string) bool { return to == ApplyToAll || to == ApplyToQueues || to == kind }
	return applied{firstMatch(ps.users, applies, name), firstMatch(ps.operators, applies, name)}
}

func (ps policies) forExchange(name string) applied {
	applies := func(to string) bool { return to == ApplyToAll || to == ApplyToExchanges }
	return applied{firstMatch(ps.users, applies, name), firstMatch(ps.operators, applies, name)}
}

// applyPolicies chooses the policies of everything in a vhost anew. What they
// come to is kept in the records of queues and exchanges, where a publish
// finds it without a search, but is no part of the state's bytes: it follows
// from the policies, and is worked out again when a snapshot is restored. So
// replicas cannot differ in it, and snapshots from before there were policies
// are read as they are.
func (s *State) applyPolicies(vhost string) {
	ps := s.policiesOf(vhost)
	for _, q := range s.queues.list(vhostPrefix(vhost)) {
		a := ps.forQueue(q.Name, q.Args)
		if a == q.applied {
			continue
		}
		next := *q
		next.apply(a)
		s.indexQueue(&next)
		s.changed(QueueChanged{&next})
	}
	for _, x := range s.exchanges.list(vhostPrefix(vhost)) {
		a := ps.forExchange(x.Name)
		if a == x.applied {
			continue
		}
		next := *x
		next.apply(a)
		s.exchanges.put(nameKey(x.VHost, x.Name), &next)
	}
}

func (s *State) forgetPolicies(vhost string) {
	for _, operator := range []bool{false, true} {
		for _, p := range s.policies.list(policyPrefix(vhost, operator)) {
			s.policies.delete(policyKey(p.VHost, p.Operator, p.Name))
		}
	}
}
