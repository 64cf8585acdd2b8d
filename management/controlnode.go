package management

import (
	"context"
	"log/slog"
	"math"
	"os"

	"warren/fsm/meta"
)

// setClusterName names the cluster for all its nodes, which keep the name as the
// global parameter that RabbitMQ keeps it as.
func (c *command) setClusterName(ctx context.Context) (ControlReply, error) {
	if name := c.arg(0); name == "" || len(name) > meta.ClusterNameBytesMax {
		return ControlReply{}, refused(ExitData, "the name of a cluster must be 1 to %d bytes", meta.ClusterNameBytesMax)
	}
	op, err := meta.SetClusterName(c.arg(0))
	if err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, op)
}

// setLogLevel changes what the node logs. RabbitMQ has levels that nothing is
// logged at here; they stand for the nearest one.
func (c *command) setLogLevel(context.Context) (ControlReply, error) {
	level, ok := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "notice": slog.LevelWarn, "warning": slog.LevelWarn,
		"error": slog.LevelError, "critical": slog.LevelError, "alert": slog.LevelError, "emergency": slog.LevelError,
		"none": math.MaxInt32,
	}[c.arg(0)]
	if !ok {
		return ControlReply{}, refused(ExitUsage, "level %s is not supported. Try one of debug, info, warning, error, none", c.arg(0))
	}
	return ControlReply{}, c.server.source.SetLogLevel(level)
}

// stop ends the node's process, after this has been answered: the HTTP side ends
// last. Who asked can wait for the process.
func (c *command) stop(context.Context) (ControlReply, error) {
	c.server.source.Stop()
	return ControlReply{Rows: []Row{{"node": c.server.source.Stats().Node, "pid": os.Getpid()}}}, nil
}

// environment shows what the node goes by.
func (c *command) environment(context.Context) (r ControlReply, err error) {
	for _, s := range c.server.source.Environment() {
		r.Rows = append(r.Rows, Row{"key": s.Key, "value": s.Value})
	}
	return r, nil
}
