package management

import (
	"context"
	"slices"
	"sync"

	"warren/fsm/meta"
	"warren/mq"
)

// queueAskersMax is how many leaders list_queues asks at once.
const queueAskersMax = 16

// listQueues lists the queues of a vhost. Leaders are asked for counts only if
// the arguments, which name the columns, want them.
func (c *command) listQueues(ctx context.Context) (r ControlReply, err error) {
	counts := len(c.Args) == 0 || slices.ContainsFunc(c.Args, func(column string) bool {
		return slices.Contains([]string{"messages", "messages_ready", "messages_unacknowledged", "consumers", "state", "leader"}, column)
	})
	names := map[string]string{}
	for _, n := range c.view.Nodes() {
		names[string(n.ID)] = n.Name
	}
	var asking sync.WaitGroup
	places := make(chan struct{}, queueAskersMax)
	for q := range c.view.EachQueue(c.VHost) {
		row := queueRow(q)
		r.Rows = append(r.Rows, row)
		if !counts {
			continue
		}
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			addCounts(row, c.server.source.QueueStatus(ctx, q), names)
		})
	}
	asking.Wait()
	return r, ctx.Err()
}

func queueRow(q *meta.Queue) Row {
	kind, _ := q.Args.String("x-queue-type")
	if kind == "" {
		kind = "classic"
	}
	row := Row{
		"name": q.Name, "vhost": q.VHost, "durable": q.Durable, "auto_delete": q.AutoDelete, "exclusive": q.Exclusive,
		"type": kind, "arguments": arguments(q.Args), "policy": nameOf(q.Policy()), "operator_policy": nameOf(q.OperatorPolicy()),
		"effective_policy_definition": string(Properties(fromPolicies(q))),
	}
	if _, local := q.Group.Local(); !local {
		row["group"] = uint64(q.Group)
	}
	return row
}

func nameOf(p *meta.Policy) string {
	if p == nil {
		return ""
	}
	return p.Name
}

// fromPolicies are the keys that a queue has from its policies, with what they
// come to.
func fromPolicies(q *meta.Queue) (out mq.Table) {
	for _, p := range []*meta.Policy{q.Policy(), q.OperatorPolicy()} {
		if p == nil {
			continue
		}
		for _, f := range p.Definition {
			if v, ok := q.Effective().Get("x-" + f.Key); ok {
				out = append(out, mq.Field{Key: f.Key, Value: v})
			}
		}
	}
	return out
}

// addCounts notes what a queue's leader says; what it did not say is missing.
func addCounts(row Row, st Queue, names map[string]string) {
	row["state"], row["leader"] = "down", names[st.Leader]
	if st.Ready < 0 {
		return
	}
	row["state"] = "running"
	row["messages"], row["messages_ready"], row["messages_unacknowledged"] = st.Ready+st.Unacked, st.Ready, st.Unacked
	row["consumers"] = st.Consumers
}

// arguments is a table as rabbitmqctl shows one: a list of keys with the types
// and the values.
func arguments(t mq.Table) [][3]any {
	out := [][3]any{}
	for _, f := range t {
		out = append(out, [3]any{f.Key, meta.TypeName(f.Value), plain(f.Value)})
	}
	return out
}

func (c *command) listExchanges(context.Context) (r ControlReply, err error) {
	for x := range c.view.EachExchange(c.VHost) {
		r.Rows = append(r.Rows, Row{
			"name": x.Name, "vhost": x.VHost, "type": x.Type, "durable": x.Durable, "auto_delete": x.AutoDelete,
			"internal": x.Internal, "arguments": arguments(x.Args), "policy": nameOf(x.Policy()),
		})
	}
	return r, nil
}

// listBindings lists the bindings of a vhost, first those of the default
// exchange, which nobody made.
func (c *command) listBindings(context.Context) (r ControlReply, err error) {
	row := func(b *meta.Binding) Row {
		kind := "queue"
		if b.ToExchange {
			kind = "exchange"
		}
		return Row{
			"vhost": b.VHost, "source_name": b.Source, "source_kind": "exchange", "destination_name": b.Destination,
			"destination_kind": kind, "routing_key": b.Key, "arguments": arguments(b.Args),
		}
	}
	for q := range c.view.EachQueue(c.VHost) {
		r.Rows = append(r.Rows, row(&meta.Binding{VHost: q.VHost, Destination: q.Name, Key: q.Name}))
	}
	for b := range c.view.EachBinding(c.VHost) {
		r.Rows = append(r.Rows, row(b))
	}
	return r, nil
}

func (c *command) deleteQueue(ctx context.Context) (ControlReply, error) {
	q := c.view.Queue(c.VHost, c.arg(0))
	if q == nil {
		return ControlReply{}, refused(ExitUsage, "No such queue was found")
	}
	_, err := c.server.source.DeleteQueue(ctx, c.operator, q, c.Options["if-unused"] != "", c.Options["if-empty"] != "")
	return ControlReply{}, err
}

func (c *command) purgeQueue(ctx context.Context) (ControlReply, error) {
	q := c.view.Queue(c.VHost, c.arg(0))
	if q == nil {
		return ControlReply{}, refused(ExitData, "Object (queue, stream, exchange, etc) was not found")
	}
	_, err := c.server.source.PurgeQueue(ctx, q)
	return ControlReply{}, err
}

func (c *command) clusterStatus(ctx context.Context) (ControlReply, error) {
	st, err := c.server.source.Status(ctx, 0)
	if err != nil {
		return ControlReply{}, err
	}
	all, running := []string{}, []string{}
	for _, m := range st.Members {
		all = append(all, m.Name)
		if m.Alive {
			running = append(running, m.Name)
		}
	}
	return ControlReply{Rows: []Row{{
		"cluster_name": st.Cluster, "cluster_id": st.ClusterID, "disk_nodes": all, "running_nodes": running,
		"node": st.Node, "version": st.Version, "not_ready": st.NotReady,
	}}}, nil
}
