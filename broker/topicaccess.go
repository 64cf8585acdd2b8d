package broker

import (
	"regexp"
	"strings"

	"warren/fsm/meta"
	"warren/mq"
)

// topicGrantsMax bounds the exchanges whose topic permissions an Access keeps
// compiled; beyond it all are dropped and compiled again when needed.
const topicGrantsMax = 512

// topicGrant is a compiled topic permission, good as long as the record is
// the same.
type topicGrant struct {
	permission  *meta.TopicPermission
	write, read *pattern
}

// AllowTopic refuses to publish with a routing key to a topic exchange
// ("write"), or to bind with one ("read"), as of a View. Without a topic
// permission for the exchange every key is allowed (RabbitMQ, "Access
// Control": topic authorisation comes on top of the other).
func (a *Access) AllowTopic(v *meta.View, permission, exchange, key string) error {
	rec := v.TopicPermission(a.user, a.vhost, exchange)
	if rec == nil || a.all {
		return nil
	}
	g := a.topicGrant(exchange, rec)
	p := g.write
	if permission == "read" {
		p = g.read
	}
	if p.matches(key) {
		return nil
	}
	return mq.Errorf(mq.AccessRefused, "%s access to topic '%s' in exchange '%s' in vhost '%s' refused for user '%s'",
		permission, key, exchange, a.vhost, a.user)
}

func (a *Access) topicGrant(exchange string, rec *meta.TopicPermission) *topicGrant {
	a.mu.Lock()
	defer a.mu.Unlock()
	if g := a.topics[exchange]; g != nil && g.permission == rec {
		return g
	}
	if len(a.topics) >= topicGrantsMax || a.topics == nil {
		a.topics = map[string]*topicGrant{}
	}
	g := &topicGrant{rec, newPattern(a.expand(rec.Write)), newPattern(a.expand(rec.Read))}
	a.topics[exchange] = g
	return g
}

// expand puts the connection's user and vhost in the place of their names in
// braces. They stand for themselves, whatever a regular expression would make
// of them.
func (a *Access) expand(pattern string) string {
	if !strings.Contains(pattern, "{") {
		return pattern
	}
	return strings.NewReplacer("{username}", regexp.QuoteMeta(a.user), "{vhost}", regexp.QuoteMeta(a.vhost)).Replace(pattern)
}
