package management

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"warren/fsm/meta"
	"warren/mq"
)

// importersMax is how many queues, exchanges or bindings are made at once.
const importersMax = 32

func (c *command) exportDefinitions(ctx context.Context) (ControlReply, error) {
	d := Define(c.view)
	st, err := c.server.source.Status(ctx, 0)
	if err != nil {
		return ControlReply{}, err
	}
	d.RabbitMQ, d.Product, d.Version, d.Format, d.ClusterName = st.Version, "Warren", st.Version, "cluster", st.Cluster
	b, err := json.Marshal(d)
	return ControlReply{Message: string(b)}, err
}

// step is one thing of a file that is to be made, and what to call it.
type step struct {
	what string
	do   func(context.Context) error
}

// importDefinitions makes all that a file has, in an order in which each thing
// finds what it needs. It stops at the first fault: what came before stays, and
// importing the mended file again does the rest.
func (c *command) importDefinitions(ctx context.Context) (ControlReply, error) {
	d, err := ParseDefinitions([]byte(c.arg(0)))
	if err != nil {
		return ControlReply{}, refused(ExitData, "Failed to parse the definitions: %v", err)
	}
	for _, s := range c.accounts(&d) {
		if err := s.do(ctx); err != nil {
			return ControlReply{}, refused(ExitData, "%s: %v", s.what, err)
		}
	}
	for _, all := range [][]step{c.queues(&d), c.exchanges(&d), c.bindings(&d)} {
		if err := atOnce(ctx, all); err != nil {
			return ControlReply{}, err
		}
	}
	return ControlReply{}, nil
}

// atOnce carries steps out that do not need each other.
func atOnce(ctx context.Context, all []step) (first error) {
	var mu sync.Mutex // guards first
	var work sync.WaitGroup
	places := make(chan struct{}, importersMax)
	for _, s := range all {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			err := s.do(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && first == nil {
				first = refused(ExitData, "%s: %v", s.what, err)
			}
		})
	}
	work.Wait()
	return first
}

// administering is a step that an operator's change is.
func (c *command) administering(what string, op meta.Op, err error) step {
	return step{what, func(ctx context.Context) error {
		if err == nil {
			_, err = c.server.source.Administer(ctx, op)
		}
		return err
	}}
}

// accounts are users, vhosts and what is said about them.
func (c *command) accounts(d *Definitions) (all []step) {
	for _, h := range d.VHosts {
		all = append(all, c.administering(fmt.Sprintf("vhost '%s'", h.Name),
			meta.VHostPut{Name: h.Name, Description: h.Description, Tags: h.Tags, DefaultQueueType: h.DefaultQueueType}, nil))
	}
	for _, u := range d.Users {
		what := fmt.Sprintf("user '%s'", u.Name)
		all = append(all, c.administering(what, meta.UserPut{Name: u.Name, PasswordHash: u.PasswordHash, Algorithm: u.Algorithm, Tags: u.Tags}, nil))
		if len(u.Limits) == 0 || string(u.Limits) == "{}" || string(u.Limits) == "[]" {
			continue
		}
		limits, err := parseLimits(string(u.Limits), userLimitNames())
		var op meta.SettingPut
		if err == nil {
			op, err = putLimits(meta.UserLimits(u.Name), limits)
		}
		all = append(all, c.administering("limits of "+what, op, err))
	}
	for _, p := range d.Permissions {
		all = append(all, c.administering(fmt.Sprintf("permissions of user '%s' in vhost '%s'", p.User, p.VHost), meta.PermissionSet(p), nil))
	}
	for _, p := range d.TopicPermissions {
		all = append(all, c.administering(fmt.Sprintf("topic permissions of user '%s' in vhost '%s'", p.User, p.VHost), meta.TopicPermissionSet(p), nil))
	}
	for _, p := range d.Parameters {
		op, err := p.change()
		all = append(all, c.administering(fmt.Sprintf("parameter '%s' of component '%s'", p.Name, p.Component), op, err))
	}
	for _, p := range d.GlobalParameters {
		var err error
		if len(p.Value) == 0 { // which is no JSON: it could not be exported
			err = errors.New("no value given")
		}
		all = append(all, c.administering(fmt.Sprintf("global parameter '%s'", p.Name), meta.SettingPut{Name: meta.GlobalParameter(p.Name), Value: string(p.Value)}, err))
	}
	for _, p := range d.Policies {
		op, err := p.policy(false)
		all = append(all, c.administering(fmt.Sprintf("policy '%s' in vhost '%s'", p.Name, p.VHost), op, err))
	}
	return all
}

// declaring is a step that makes a thing with arguments in a vhost.
func (c *command) declaring(what, vhost string, args json.RawMessage, op func(mq.Table) mq.Op) step {
	return step{fmt.Sprintf("%s in vhost '%s'", what, vhost), func(ctx context.Context) error {
		t, err := table(args)
		if err != nil {
			return err
		}
		return c.server.source.Declare(ctx, c.operator, vhost, op(t))
	}}
}

func (c *command) queues(d *Definitions) (all []step) {
	for _, q := range d.Queues {
		all = append(all, c.declaring(fmt.Sprintf("queue '%s'", q.Name), q.VHost, q.Arguments, func(t mq.Table) mq.Op {
			return mq.QueueDeclare{Name: q.Name, Durable: q.Durable, AutoDelete: q.AutoDelete, Args: t}
		}))
	}
	return all
}

func (c *command) exchanges(d *Definitions) (all []step) {
	for _, x := range d.Exchanges {
		all = append(all, c.declaring(fmt.Sprintf("exchange '%s'", x.Name), x.VHost, x.Arguments, func(t mq.Table) mq.Op {
			return mq.ExchangeDeclare{Name: x.Name, Type: x.Type, Durable: x.Durable, AutoDelete: x.AutoDelete, Internal: x.Internal, Args: t}
		}))
	}
	return all
}

func (c *command) bindings(d *Definitions) (all []step) {
	for _, b := range d.Bindings {
		all = append(all, c.declaring(fmt.Sprintf("binding from '%s' to '%s'", b.Source, b.Destination), b.VHost, b.Arguments, func(t mq.Table) mq.Op {
			if b.DestinationType == "exchange" {
				return mq.ExchangeBind{Source: b.Source, Destination: b.Destination, RoutingKey: b.Key, Args: t}
			}
			return mq.QueueBind{Queue: b.Destination, Exchange: b.Source, RoutingKey: b.Key, Args: t}
		}))
	}
	return all
}
