package broker

import (
	"strings"
	"testing"

	"warren/mq"
)

func prefixed(name string, prefix any) mq.QueueDeclare {
	return mq.QueueDeclare{Name: name, Exclusive: true, Args: mq.Table{{Key: "x-message-ttl", Value: int32(60000)}, {Key: namePrefix, Value: prefix}}}
}

// What RabbitMQ 4.3 does, and its limit.
func TestAClientChoosesHowAGeneratedNameBegins(t *testing.T) {
	longest := strings.Repeat("x", namePrefixBytesMax)
	for _, c := range []struct {
		prefix any
		want   string
	}{
		{"myapp", "myapp-"}, {"acme.corp", "acme.corp-"}, {longest, longest + "-"},
		{"", "amq.gen-"}, {int32(7), "amq.gen-"}, {"amq.gen", "amq.gen-"}, {"\r\n", "amq.gen-"},
	} {
		f := newTopo(t)
		name := f.must(prefixed("", c.prefix)).Queue
		if !strings.HasPrefix(name, c.want) || len(name) <= len(c.want) {
			t.Errorf("%q: got the name %q, want %s...", c.prefix, name, c.want)
		}
		if q := f.catalog.View().Queue("/", name); q == nil || len(q.Args) != 1 || q.Args[0].Key != "x-message-ttl" {
			t.Errorf("%q: the prefix is kept as an argument: %+v", c.prefix, q)
		}
	}
}

func TestANamePrefixMeansNothingForAQueueThatHasAName(t *testing.T) {
	f := newTopo(t)
	for _, prefix := range []any{"ignored", "another", strings.Repeat("x", namePrefixBytesMax+1), "amq.x", int32(7)} {
		if name := f.must(prefixed("q", prefix)).Queue; name != "q" { // an equivalent declaration each time
			t.Errorf("%q: got the name %q", prefix, name)
		}
	}
}

func TestANamePrefixIsRefusedThatNoNameMayHave(t *testing.T) {
	f := newTopo(t)
	for prefix, want := range map[string]string{
		strings.Repeat("x", namePrefixBytesMax+1): "PRECONDITION_FAILED - invalid arg 'x-name-prefix': 65 bytes long, the limit is 64",
		"\xff":                  "PRECONDITION_FAILED - invalid arg 'x-name-prefix': not UTF-8",
		"amq.rabbitmq.reply-to": "ACCESS_REFUSED - queue name 'amq.rabbitmq.reply-to' contains reserved prefix 'amq.*'",
	} {
		_, err := f.Change(t.Context(), prefixed("", prefix))
		wantText(t, err, want)
	}
	if n := f.size()[0]; n != 0 {
		t.Errorf("%d queues were made all the same", n)
	}
}
