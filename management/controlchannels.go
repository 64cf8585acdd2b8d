package management

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"warren/mq"
)

// Arguments is a table as rabbitmqctl shows a queue's, in JSON.
func Arguments(t mq.Table) json.RawMessage {
	b, err := json.Marshal(arguments(t))
	if err != nil { // see Properties
		return json.RawMessage("[]")
	}
	return b
}

// channelPid is what stands for RabbitMQ's pid of a channel: the name that its
// management gives to it.
func channelPid(connection string, number uint16) string {
	return fmt.Sprintf("%s (%d)", connection, number)
}

// rowOf is a struct with JSON names as a row.
func rowOf(v any) (Row, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	row := Row{}
	return row, json.Unmarshal(b, &row)
}

func (c *command) listChannels(ctx context.Context) (r ControlReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectionsTimeout)
	defer cancel()
	for _, x := range c.server.source.Channels(ctx) {
		row, err := rowOf(x)
		if err != nil {
			return r, err
		}
		row["pid"] = channelPid(x.Connection, x.Number)
		row["name"] = row["pid"]
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

// listConsumers lists the consumers in a vhost by their queues.
func (c *command) listConsumers(ctx context.Context) (r ControlReply, err error) {
	if err := c.mustHaveVHost(); err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectionsTimeout)
	defer cancel()
	all := c.server.source.Consumers(ctx, c.VHost)
	slices.SortStableFunc(all, func(a, b Consumer) int { return cmp.Compare(a.Queue, b.Queue) })
	for _, x := range all {
		row, err := rowOf(x)
		if err != nil {
			return r, err
		}
		row["channel_pid"] = channelPid(x.Connection, x.Channel)
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}
