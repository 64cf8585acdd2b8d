package conform

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// refusal is something that a broker must not do, and says so in these words.
type refusal struct {
	name    string // the claim
	source  string
	feature string // in notYet, if it came later
	// ask is sent on channel 1; the last of it is refused.
	ask  func(c *claim) []payload
	want string // as incoming.refusal shows it; ID is the end of the test's names

	warren, why string // what Warren says where it means to differ, and why
}

// refuse tests refusals, each on a connection of its own.
func refuse(t *testing.T, all []refusal) {
	t.Helper()
	for _, f := range all {
		t.Run(f.name, func(t *testing.T) {
			var features []string
			if f.feature != "" {
				features = append(features, f.feature)
			}
			c := begin(t, f.source, features...)
			want := f.want
			if f.why != "" {
				want = differs(t, f.want, f.warren, f.why)
			}
			c.raw().refused(want, f.ask(c)...)
		})
	}
}

// asks is for what needs nothing but its own name.
func asks(m func(name string) payload) func(*claim) []payload {
	return func(c *claim) []payload { return []payload{m(c.name("x"))} }
}

// redeclares is for a queue that is declared once more in another way.
func redeclares(flags uint8, args amqp.Table) func(*claim) []payload {
	return func(c *claim) []payload {
		return []payload{queueDeclare(c.queue("q", nil), flags, args)}
	}
}
