package management

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// connections are those of the whole cluster, or those of a name.
func (c *command) connections(ctx context.Context, name string) []Connection {
	ctx, cancel := context.WithTimeout(ctx, connectionsTimeout)
	defer cancel()
	return c.server.source.Connections(ctx, name)
}

// listConnections lists all connections. What RabbitMQ calls one by, its pid,
// is its name here.
func (c *command) listConnections(ctx context.Context) (r ControlReply, err error) {
	for _, x := range c.connections(ctx, "") {
		b, err := json.Marshal(show(&x))
		if err != nil {
			return r, err
		}
		row := Row{}
		if err := json.Unmarshal(b, &row); err != nil {
			return r, err
		}
		row["pid"] = x.Name
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

func (c *command) closeConnection(ctx context.Context) (ControlReply, error) {
	found := c.connections(ctx, c.arg(0))
	if len(found) == 0 || !c.server.source.CloseConnection(ctx, found[0], reasonOf(c.arg(1))) {
		return ControlReply{}, refused(ExitUnavailable, "there is no connection \"%s\"", c.arg(0))
	}
	return ControlReply{}, nil
}

func (c *command) closeAllConnections(ctx context.Context) (ControlReply, error) {
	global := c.Options["global"] != ""
	if !global {
		if err := c.mustHaveVHost(); err != nil {
			return ControlReply{}, err
		}
	}
	return c.closeThose(ctx, func(x *Connection) bool { return global || x.VHost == c.VHost }, c.arg(0))
}

func (c *command) closeAllUserConnections(ctx context.Context) (ControlReply, error) {
	return c.closeThose(ctx, func(x *Connection) bool { return x.User == c.arg(0) }, c.arg(1))
}

// closeThose closes connections, at most as many as the option limit says, and
// with a pause after each, if one is asked for.
func (c *command) closeThose(ctx context.Context, which func(*Connection) bool, why string) (ControlReply, error) {
	limit, err := c.number("limit")
	if err != nil {
		return ControlReply{}, err
	}
	pauseMs, err := c.number("per-connection-delay")
	if err != nil {
		return ControlReply{}, err
	}
	closed := 0
	for _, x := range c.connections(ctx, "") {
		if !which(&x) {
			continue
		}
		if limit > 0 && closed == limit {
			break
		}
		if pauseMs > 0 && closed > 0 {
			pause := time.NewTimer(time.Duration(pauseMs) * time.Millisecond)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return ControlReply{}, refused(ExitUnavailable, "closed %d connections, then the time was over", closed)
			}
		}
		if c.server.source.CloseConnection(ctx, x, reasonOf(why)) {
			closed++
		}
	}
	return ControlReply{Message: fmt.Sprintf("Closed %d connections", closed)}, nil
}

// number is a whole number among the options, 0 if it was not given.
func (c *command) number(option string) (int, error) {
	given := c.Options[option]
	if given == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 0 {
		return 0, refused(ExitUsage, "--%s must be a whole number", option)
	}
	return n, nil
}
