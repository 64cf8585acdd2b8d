package management

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

// ControlPath is where a node takes the commands of `warren ctl`.
const ControlPath = "/api/warren/control"

const (
	// controlTimeout is how long a command may take. It is shorter than
	// writeTimeout, so that the answer can still be written.
	controlTimeout = 25 * time.Second
	// controlRequestsMax is how many commands are at work at once; more are
	// answered with 503.
	controlRequestsMax = 8
	controlBytesMax    = 16 << 20 // of a request: definitions can be many
)

// What a command line exits with (sysexits.h), as rabbitmqctl does.
const (
	ExitUsage       = 64
	ExitData        = 65
	ExitNoUser      = 67
	ExitUnavailable = 69
	ExitSoftware    = 70
)

// Control is what operators may do with the cluster. All methods may be called
// from any number of goroutines at once.
type Control interface {
	// ControlSecret is what a local command line shows instead of a password.
	// Nothing is let in by it if it is empty.
	ControlSecret() string
	// View is the newest metadata that the node has applied.
	View() *meta.View
	// Administer checks an operator's change and commits it; when it returns,
	// every live node has applied it. A refusal is an mq.Error.
	Administer(ctx context.Context, op meta.Op) (changed bool, err error)
	// Declare makes a queue, an exchange or a binding, if it is not there.
	Declare(ctx context.Context, operator, vhost string, op mq.Op) error
	// DeleteQueue deletes a queue unless a condition says no, and PurgeQueue
	// drops what is ready; both say how many messages were ready.
	DeleteQueue(ctx context.Context, operator string, q *meta.Queue, ifUnused, ifEmpty bool) (messages uint32, err error)
	PurgeQueue(ctx context.Context, q *meta.Queue) (messages uint32, err error)
	// SetMemoryHighWatermark and SetDiskFreeLimit change, until this node ends,
	// when its publishers wait: above a share of its memory, or with bytes other
	// than 0 above so many; below so many bytes of free disk, 0 for the default.
	SetMemoryHighWatermark(share float64, bytes uint64) error
	SetDiskFreeLimit(bytes uint64)
	// SetLogLevel changes, until this node ends, what it logs.
	SetLogLevel(level slog.Level) error
	// Stop begins the end of the node, as a signal does. It does not wait for it,
	// and does no more when it is called again.
	Stop()
	// Environment is what the node goes by, in order, without its secrets.
	Environment() []Setting
	// QueueStatus is a queue with its counts, which its leader is asked for.
	QueueStatus(ctx context.Context, q *meta.Queue) Queue
}

// ControlRequest is a command: a verb of rabbitmqctl with its arguments.
type ControlRequest struct {
	Verb    string            `json:"verb"`
	Args    []string          `json:"args,omitempty"`
	VHost   string            `json:"vhost,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// Setting is one thing that a node goes by, under its key in the configuration
// file.
type Setting struct{ Key, Value string }

// Row is one line of a list, by column.
type Row map[string]any

// ControlReply is what became of a command.
type ControlReply struct {
	Message string `json:"message,omitempty"`
	Rows    []Row  `json:"rows,omitempty"`
}

// ControlError says why a command was not carried out, and what a command
// line exits with.
type ControlError struct {
	Exit   int    `json:"exit"`
	Reason string `json:"reason"`
}

// Error is the reason.
func (e *ControlError) Error() string { return e.Reason }

func refused(exit int, format string, args ...any) *ControlError {
	return &ControlError{exit, fmt.Sprintf(format, args...)}
}

// command is a request at work.
type command struct {
	*ControlRequest
	server   *Server
	operator string
	view     *meta.View
}

// arg is the i-th argument, "" if it was not given.
func (c *command) arg(i int) string {
	if i < len(c.Args) {
		return c.Args[i]
	}
	return ""
}

// ofNode reports whether a command is about the node alone, and needs no cluster.
func (c *command) ofNode() bool {
	return c.Verb == "stop" || c.Verb == "shutdown" || c.Verb == "set_log_level"
}

// change carries out one change whose answer needs no words.
func (c *command) change(ctx context.Context, op meta.Op) (ControlReply, error) {
	_, err := c.server.source.Administer(ctx, op)
	return ControlReply{}, err
}

// verbs finds out what to do. The number of arguments is the first number, or
// up to the second.
func (c *command) verb() (do func(context.Context) (ControlReply, error), least, most int) {
	const any = 1000
	switch c.Verb {
	case "add_user":
		return c.addUser, 2, 2
	case "delete_user":
		return c.deleteUser, 1, 1
	case "change_password":
		return c.changePassword, 2, 2
	case "clear_password":
		return c.clearPassword, 1, 1
	case "authenticate_user":
		return c.authenticateUser, 2, 2
	case "set_user_tags":
		return c.setUserTags, 1, any
	case "list_users":
		return c.listUsers, 0, 0
	case "add_vhost":
		return c.addVHost, 1, 1
	case "delete_vhost":
		return c.deleteVHost, 1, 1
	case "list_vhosts":
		return c.listVHosts, 0, any
	case "trace_on", "trace_off":
		return c.trace, 0, 0
	case "set_permissions":
		return c.setPermissions, 4, 4
	case "clear_permissions":
		return c.clearPermissions, 1, 1
	case "list_permissions":
		return c.listPermissions, 0, 0
	case "list_user_permissions":
		return c.listUserPermissions, 1, 1
	case "set_topic_permissions":
		return c.setTopicPermissions, 4, 4
	case "clear_topic_permissions":
		return c.clearTopicPermissions, 1, 2
	case "list_topic_permissions":
		return c.listTopicPermissions, 0, 0
	case "list_user_topic_permissions":
		return c.listUserTopicPermissions, 1, 1
	case "set_policy", "set_operator_policy":
		return c.setPolicy, 3, 3
	case "clear_policy", "clear_operator_policy":
		return c.clearPolicy, 1, 1
	case "list_policies", "list_operator_policies":
		return c.listPolicies, 0, 0
	case "list_queues":
		return c.listQueues, 0, any
	case "list_unresponsive_queues":
		return c.listUnresponsiveQueues, 0, any
	case "list_exchanges":
		return c.listExchanges, 0, any
	case "list_bindings":
		return c.listBindings, 0, any
	case "list_connections":
		return c.listConnections, 0, any
	case "list_channels":
		return c.listChannels, 0, any
	case "list_consumers":
		return c.listConsumers, 0, any
	case "set_vhost_limits", "set_user_limits":
		return c.setLimits, 1, 2
	case "clear_vhost_limits", "clear_user_limits":
		return c.clearLimits, 0, 2
	case "list_vhost_limits":
		return c.listVHostLimits, 0, 0
	case "list_user_limits":
		return c.listUserLimits, 0, 0
	case "set_global_parameter":
		return c.setGlobalParameter, 2, 2
	case "clear_global_parameter":
		return c.clearGlobalParameter, 1, 1
	case "list_global_parameters":
		return c.listGlobalParameters, 0, 0
	case "set_parameter":
		return c.setParameter, 3, 3
	case "clear_parameter":
		return c.clearParameter, 2, 2
	case "list_parameters":
		return c.listParameters, 0, 0
	case "export_definitions":
		return c.exportDefinitions, 0, 0
	case "import_definitions":
		return c.importDefinitions, 1, 1
	case "close_connection":
		return c.closeConnection, 2, 2
	case "close_all_connections":
		return c.closeAllConnections, 1, 1
	case "close_all_user_connections":
		return c.closeAllUserConnections, 2, 2
	case "delete_queue":
		return c.deleteQueue, 1, 1
	case "purge_queue":
		return c.purgeQueue, 1, 1
	case "set_vm_memory_high_watermark":
		return c.setMemory, 1, 2
	case "set_disk_free_limit":
		return c.setDiskFree, 1, 1
	case "set_cluster_name":
		return c.setClusterName, 1, 1
	case "set_log_level":
		return c.setLogLevel, 1, 1
	case "stop", "shutdown":
		return c.stop, 0, 0
	case "environment":
		return c.environment, 0, 0
	case "cluster_status":
		return c.clusterStatus, 0, 0
	}
	return nil, 0, 0
}

// forControl lets a request through that shows the node's secret, or comes
// from an administrator; all others are answered 401, from wherever they come.
func (s *Server) forControl(serve func(http.ResponseWriter, *http.Request, *operator)) http.HandlerFunc {
	byPassword := s.forOperators(func(w http.ResponseWriter, r *http.Request, o *operator) {
		if !o.has("administrator") {
			s.log.Warn("command refused: the user is no administrator", "user", o.name, "peer", r.RemoteAddr)
			challenge(w, "Not administrator user")
			return
		}
		serve(w, r, o)
	})
	return func(w http.ResponseWriter, r *http.Request) {
		shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			byPassword(w, r)
			return
		}
		secret := s.source.ControlSecret()
		if secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(shown)) != 1 {
			s.log.Warn("command refused: it shows another secret than this node's", "peer", r.RemoteAddr)
			challenge(w, "Login failed")
			return
		}
		serve(w, r, &operator{"warren-ctl", []string{"administrator"}})
	}
}

// serveControl carries out a command.
func (s *Server) serveControl(w http.ResponseWriter, r *http.Request, o *operator) {
	select {
	case s.control <- struct{}{}:
		defer func() { <-s.control }()
	default:
		writeControlError(w, http.StatusServiceUnavailable, refused(ExitUnavailable, "too many commands at once"))
		return
	}
	var req ControlRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, controlBytesMax)).Decode(&req); err != nil {
		writeControlError(w, http.StatusBadRequest, refused(ExitUsage, "malformed command: %v", err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), controlTimeout)
	defer cancel()
	c := &command{ControlRequest: &req, server: s, operator: o.name, view: s.source.View()}
	do, least, most := c.verb()
	switch {
	case do == nil:
		writeControlError(w, http.StatusNotFound, refused(ExitUsage, "Command '%s' not found.", req.Verb))
		return
	case len(req.Args) < least || len(req.Args) > most:
		writeControlError(w, http.StatusBadRequest, refused(ExitUsage, "%s does not take %d arguments", req.Verb, len(req.Args)))
		return
	case !c.view.Initialized() && !c.ofNode():
		writeControlError(w, http.StatusServiceUnavailable, refused(ExitUnavailable, "the cluster is not formed yet, or its metadata has no leader"))
		return
	}
	reply, err := do(ctx)
	if err != nil {
		s.log.Info("command not carried out", "verb", req.Verb, "operator", o.name, "err", err)
		code, shown := explain(err)
		writeControlError(w, code, shown)
		return
	}
	if reads := strings.HasPrefix(req.Verb, "list_") || req.Verb == "cluster_status" || req.Verb == "environment"; !reads {
		s.log.Info("command carried out", "verb", req.Verb, "vhost", req.VHost, "operator", o.name) // no arguments: there are passwords among them
	}
	writeJSON(w, http.StatusOK, reply)
}

// explain is an error as a command line hears it.
func explain(err error) (code int, shown *ControlError) {
	var e *mq.Error
	switch {
	case errors.As(err, &shown):
		return http.StatusBadRequest, shown
	case errors.As(err, &e) && e.Code == mq.InternalError:
		return http.StatusServiceUnavailable, refused(ExitUnavailable, "%s", e.Text)
	case errors.As(err, &e):
		return http.StatusBadRequest, refused(ExitUnavailable, "%s", e.Text)
	}
	return http.StatusServiceUnavailable, refused(ExitUnavailable, "%v", err)
}

func writeControlError(w http.ResponseWriter, code int, e *ControlError) { writeJSON(w, code, e) }
