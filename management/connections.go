package management

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// connectionsTimeout is how long the other nodes may take to say which
	// connections they have, or to close one; one that takes longer is left out.
	connectionsTimeout = 2 * time.Second
	// connectionRequestsMax is how many requests about connections are at work
	// at once; more are answered with 503. One holds the list of them all.
	connectionRequestsMax = 4
	// reasonBytesMax is how much of X-Reason is told to a client: what fits an
	// AMQP short string next to the code's name.
	reasonBytesMax = 200
)

// shownConnection is a Connection with what all of them have in common.
type shownConnection struct {
	Connection
	UserWhoPerformedAction string `json:"user_who_performed_action"`
	Type                   string `json:"type"`
	Protocol               string `json:"protocol"`
}

func show(c *Connection) shownConnection {
	return shownConnection{Connection: *c, UserWhoPerformedAction: c.User, Type: "network", Protocol: "AMQP 0-9-1"}
}

// aboutConnections lets only so many requests about connections work at once.
func (s *Server) aboutConnections(serve func(http.ResponseWriter, *http.Request, *operator)) http.HandlerFunc {
	return s.forOperators(func(w http.ResponseWriter, r *http.Request, o *operator) {
		select {
		case s.connections <- struct{}{}:
			defer func() { <-s.connections }()
		default:
			writeError(w, http.StatusServiceUnavailable, "service_unavailable", "too many requests about connections at once")
			return
		}
		serve(w, r, o)
	})
}

// listConnections is GET /api/connections: of the whole cluster, those that
// the operator may see.
func (s *Server) listConnections(w http.ResponseWriter, r *http.Request, o *operator) {
	out := []shownConnection{} // not null when there are none
	for _, c := range s.ask(r, "") {
		if o.seesAll() || c.User == o.name {
			out = append(out, show(&c))
		}
	}
	slices.SortStableFunc(out, func(a, b shownConnection) int { return strings.Compare(a.Name, b.Name) })
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) ask(r *http.Request, name string) []Connection {
	ctx, cancel := context.WithTimeout(r.Context(), connectionsTimeout)
	defer cancel()
	return s.source.Connections(ctx, name)
}

// serveConnection is GET /api/connections/{name}.
func (s *Server) serveConnection(w http.ResponseWriter, r *http.Request, o *operator) {
	if c := s.connection(w, r, o.seesAll(), o.name); c != nil {
		writeJSON(w, http.StatusOK, show(c))
	}
}

// closeConnection is DELETE /api/connections/{name}. As RabbitMQ has it, those
// of other users are for administrators only.
func (s *Server) closeConnection(w http.ResponseWriter, r *http.Request, o *operator) {
	c := s.connection(w, r, o.has("administrator"), o.name)
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), connectionsTimeout)
	defer cancel()
	if !s.source.CloseConnection(ctx, *c, reason(r)) {
		writeError(w, http.StatusNotFound, "Object Not Found", "Not Found") // it went meanwhile
		return
	}
	s.log.Info("connection closed by an operator", "name", c.Name, "at", c.Node, "operator", o.name)
	w.WriteHeader(http.StatusNoContent)
}

// connection finds the connection that a request names, or answers why not.
func (s *Server) connection(w http.ResponseWriter, r *http.Request, anyones bool, user string) *Connection {
	found := s.ask(r, r.PathValue("name"))
	if len(found) == 0 {
		writeError(w, http.StatusNotFound, "Object Not Found", "Not Found")
		return nil
	}
	c := &found[0]
	if !anyones && c.User != user {
		writeError(w, http.StatusUnauthorized, "not_authorised", "User not authorised to access object")
		return nil
	}
	return c
}

// reason is what the client of a closed connection hears.
func reason(r *http.Request) string { return reasonOf(r.Header.Get("X-Reason")) }

func reasonOf(given string) string {
	said := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(given, ""))
	if said == "" {
		return "Closed via management plugin"
	}
	return strings.ToValidUTF8(said[:min(len(said), reasonBytesMax)], "")
}
