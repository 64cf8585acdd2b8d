package management

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"warren/mq"
)

// loginTimeout is how long the metadata leader may take to say that there is
// no such user.
const loginTimeout = 5 * time.Second

// operator is who sent a request.
type operator struct {
	name string
	tags []string
}

func (o *operator) has(tag string) bool { return slices.Contains(o.tags, tag) }

// seesAll reports whether the operator may look at what belongs to other users.
func (o *operator) seesAll() bool { return o.has("monitoring") || o.has("administrator") }

// managementTags are the tags that let a user in here at all, as RabbitMQ's do.
var managementTags = []string{"administrator", "monitoring", "policymaker", "management"}

// forOperators lets a request through that comes from a user with one of
// managementTags (HTTP Basic), and answers all others 401.
func (s *Server) forOperators(serve func(http.ResponseWriter, *http.Request, *operator)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok {
			challenge(w, "Login failed")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), loginTimeout)
		tags, err := s.source.Login(ctx, user, password, fromLoopback(r))
		cancel()
		var refused *mq.Error
		switch {
		case errors.As(err, &refused) && refused.Code == mq.AccessRefused:
			s.log.Warn("HTTP login refused", "user", user, "peer", r.RemoteAddr)
			challenge(w, "Login failed")
			return
		case err != nil:
			s.log.Warn("HTTP login not decided", "user", user, "err", err)
			writeError(w, http.StatusServiceUnavailable, "service_unavailable", "the user could not be looked up: "+err.Error())
			return
		}
		o := &operator{user, tags}
		if !slices.ContainsFunc(managementTags, o.has) {
			s.log.Warn("HTTP login refused: the user has none of the tags for it", "user", user, "peer", r.RemoteAddr)
			challenge(w, "Not management user")
			return
		}
		serve(w, r, o)
	}
}

// challenge asks for another name and password.
func challenge(w http.ResponseWriter, reason string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="Warren Management"`)
	writeError(w, http.StatusUnauthorized, "not_authorized", reason)
}

// writeError answers in the form of RabbitMQ's errors.
func writeError(w http.ResponseWriter, code int, what, reason string) {
	writeJSON(w, code, struct {
		Error  string `json:"error"`
		Reason string `json:"reason"`
	}{what, reason})
}
