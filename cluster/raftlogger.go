package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives Raft's own log lines to log: what warns stays a warning,
// Raft's everyday news become debug.
func raftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(raftSink{log})
	return l
}

// unreachable reports whether a line only says that a peer does not answer.
// Raft says that for every group many times a second; the lane says it once.
func unreachable(msg string) bool {
	for _, start := range []string{"failed to heartbeat", "failed to appendEntries", "failed to contact", "failed to make request"} {
		if strings.HasPrefix(msg, start) {
			return true
		}
	}
	return false
}

type raftSink struct{ log *slog.Logger }

// Accept is called for every line, whatever its level.
func (s raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case unreachable(msg):
	case level == hclog.Warn:
		to = slog.LevelWarn
	case level == hclog.Error:
		to = slog.LevelError
	}
	// Raft logs from inside its loops, where no context is at hand.
	ctx := context.TODO()
	if !s.log.Enabled(ctx, to) {
		return
	}
	attrs := make([]any, 0, len(args))
	for i := 0; i+1 < len(args); i += 2 {
		key, _ := args[i].(string)
		value := args[i+1]
		if f, ok := value.(hclog.Format); ok && len(f) > 0 {
			if text, ok := f[0].(string); ok {
				value = fmt.Sprintf(text, f[1:]...)
			}
		}
		if key == "error" {
			key = "err"
		}
		attrs = append(attrs, key, value)
	}
	s.log.Log(ctx, to, "raft: "+msg, attrs...)
}
