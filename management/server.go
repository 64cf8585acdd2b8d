package management

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Limits of the HTTP server. Nobody on the other end may make it wait longer
// or hold more than this.
const (
	connectionsMax    = 256
	headerBytesMax    = 16 << 10
	headerTimeout     = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	shutdownTimeout   = 2 * time.Second
	statusTimeout     = 5 * time.Second
	queuesShown       = 1000   // by /api/warren/status, unless asked for more
	queuesShownMax    = 100000 // however many are asked for
	statusRequestsMax = 4      // at once; more are answered with 503
)

// Server serves a node's HTTP side.
type Server struct {
	source  Source
	handler http.Handler
	status  chan struct{} // a place for each status request at work
	// connections has a place for each request about connections at work.
	connections chan struct{}
	control     chan struct{} // a place for each command at work
	log         *slog.Logger
}

// NewServer returns a Server of what source says. version is Warren's.
func NewServer(source Source, version string, log *slog.Logger) *Server {
	s := &Server{source: source, log: log, status: make(chan struct{}, statusRequestsMax), connections: make(chan struct{}, connectionRequestsMax), control: make(chan struct{}, controlRequestsMax)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /api/warren/status", s.serveStatus)
	mux.HandleFunc("POST "+ControlPath, s.forControl(s.serveControl))
	mux.HandleFunc("GET /api/connections", s.aboutConnections(s.listConnections))
	mux.HandleFunc("GET /api/connections/{$}", s.aboutConnections(s.listConnections))
	mux.HandleFunc("GET /api/connections/{name}", s.aboutConnections(s.serveConnection))
	mux.HandleFunc("DELETE /api/connections/{name}", s.aboutConnections(s.closeConnection))
	mux.Handle("GET /metrics", metricsHandler(source, version))
	s.handler = mux
	return s
}

// Run serves ln until ctx ends, and closes it.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	return serve(ctx, ln, s.handler, writeTimeout, s.log)
}

// serve runs an HTTP server with this room's limits until ctx ends.
func serve(ctx context.Context, ln net.Listener, h http.Handler, write time.Duration, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      write,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close() // who is still reading has had its time
		}
	})
	err := srv.Serve(newBoundedListener(ln, connectionsMax))
	if !stop() {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	}
	return nil
}

// healthz answers that the process is alive, and nothing more.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, http.StatusOK, "ok", "")
}

// readyz answers 503 and the reason until the node can serve all its groups.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.source.Ready(); err != nil {
		writeHealth(w, http.StatusServiceUnavailable, "failed", err.Error())
		return
	}
	writeHealth(w, http.StatusOK, "ok", "")
}

// writeHealth answers in the form of RabbitMQ's health checks.
func writeHealth(w http.ResponseWriter, code int, status, reason string) {
	writeJSON(w, code, struct {
		Status string `json:"status"`
		Reason string `json:"reason,omitempty"`
	}{status, reason})
}

// serveStatus answers with the cluster's status. It names queues and nodes, so
// until there are users on this side it is for this machine only.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	if !fromLoopback(r) {
		writeHealth(w, http.StatusForbidden, "failed", "the status is served to this machine only")
		return
	}
	maxQueues := queuesShown
	if q := r.URL.Query().Get("queues"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < 0 || n > queuesShownMax {
			writeHealth(w, http.StatusBadRequest, "failed", fmt.Sprintf("queues must be 0 to %d", queuesShownMax))
			return
		}
		maxQueues = n
	}
	select {
	case s.status <- struct{}{}:
		defer func() { <-s.status }()
	default:
		writeHealth(w, http.StatusServiceUnavailable, "failed", "too many status requests at once")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	st, err := s.source.Status(ctx, maxQueues)
	if err != nil {
		s.log.Warn("status request failed", "err", err)
		writeHealth(w, http.StatusServiceUnavailable, "failed", err.Error())
		return
	}
	writeJSON(w, http.StatusOK, st)
}

func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback()
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(b, '\n')) // an error here is a client that left
}
