package meta

import (
	"testing"

	"warren/mq"
)

func args(kv ...any) mq.Table {
	var t mq.Table
	for i := 0; i < len(kv); i += 2 {
		t = append(t, mq.Field{Key: kv[i].(string), Value: kv[i+1]})
	}
	return t
}

func TestRedeclaredQueueMustBeEquivalent(t *testing.T) {
	const prefix = "inequivalent arg "
	for _, c := range []struct {
		was, is mq.Table
		change  func(*QueueDeclare)
		want    string // "" for equivalent
	}{
		{change: func(q *QueueDeclare) {}},
		{change: func(q *QueueDeclare) { q.Durable = false },
			want: "'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'"},
		{change: func(q *QueueDeclare) { q.AutoDelete = true },
			want: "'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'"},
		{was: args("x-max-length", int64(5)),
			want: "'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'long'"},
		{is: args("x-message-ttl", int32(60)),
			want: "'x-message-ttl' for queue 'q' in vhost '/': received the value '60' of type 'signedint' but current is none"},
		{was: args("x-expires", int32(1)), is: args("x-expires", int32(2)),
			want: "'x-expires' for queue 'q' in vhost '/': received '2' but current is '1'"},
		{was: args("x-max-length", int64(5)), is: args("x-max-length", int8(5))},
		{was: args("x-max-length", int64(5)), is: args("x-max-length", "5"),
			want: "'x-max-length' for queue 'q' in vhost '/': received '5' but current is '5'"},
		{was: args("x-dead-letter-exchange", "a"), is: args("x-dead-letter-exchange", "b"),
			want: "'x-dead-letter-exchange' for queue 'q' in vhost '/': received 'b' but current is 'a'"},
		{was: args("x-single-active-consumer", true), is: args("x-single-active-consumer", true)},
		{was: args("x-unheard-of", "a"), is: args("x-unheard-of", "b")},
		{was: args("x-queue-type", "quorum")},
		{is: args("x-queue-type", "classic")},
		{was: args("x-queue-type", "classic"), is: args("x-queue-type", "quorum")},
		{was: args("x-queue-type", "quorum"), is: args("x-queue-type", "stream"),
			want: "'x-queue-type' for queue 'q' in vhost '/': received 'stream' but current is 'quorum'"},
		{is: args("x-queue-type", "stream"),
			want: "'x-queue-type' for queue 'q' in vhost '/': received 'stream' but current is 'classic'"},
	} {
		l := newLog(t)
		first := durable("q")
		first.Args = c.was
		l.must(first)
		again := durable("q")
		again.Args = c.is
		if c.change != nil {
			c.change(&again)
		}
		r := l.do(again)
		if c.want == "" {
			if r.Err != nil {
				t.Errorf("%v -> %v: %v", c.was, c.is, r.Err)
			}
			if got := l.state.View().Queue("/", "q").Args; len(got) != len(c.was) {
				t.Errorf("the declared arguments %v became %v", c.was, got)
			}
			continue
		}
		wantErr(t, r, mq.PreconditionFailed, prefix+c.want)
	}
}

func TestExclusiveQueueBelongsToItsConnection(t *testing.T) {
	const locked = "cannot obtain exclusive access to locked queue 'x' in vhost '/'. It could be originally " +
		"declared on another connection or the exclusive property value does not match that of the original declaration."
	l := newLog(t)
	s := l.session("n1")
	l.must(exclusive("x", s, 7))
	l.must(exclusive("x", s, 7))
	wantErr(t, l.do(exclusive("x", s, 8)), mq.ResourceLocked, locked)
	wantErr(t, l.do(durable("x")), mq.ResourceLocked, locked)
	l.must(durable("y"))
	if r := l.do(exclusive("y", s, 7)); r.Err == nil || r.Err.Code != mq.ResourceLocked {
		t.Errorf("got %v", r.Err)
	}
}

func TestRedeclaredExchangeMustBeEquivalent(t *testing.T) {
	for _, c := range []struct {
		change func(*ExchangeDeclare)
		want   string
	}{
		{func(x *ExchangeDeclare) {}, ""},
		{func(x *ExchangeDeclare) { x.Args = append(x.Args, mq.Field{Key: "x-other", Value: "ignored"}) }, ""},
		{func(x *ExchangeDeclare) { x.Type = "topic" }, "'type' for exchange 'x' in vhost '/': received 'topic' but current is 'fanout'"},
		{func(x *ExchangeDeclare) { x.Durable = false }, "'durable' for exchange 'x' in vhost '/': received 'false' but current is 'true'"},
		{func(x *ExchangeDeclare) { x.AutoDelete = true }, "'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'"},
		{func(x *ExchangeDeclare) { x.Internal = true }, "'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'"},
		{func(x *ExchangeDeclare) { x.Args = nil }, "'alternate-exchange' for exchange 'x' in vhost '/': received none but current is the value 'ae' of type 'longstr'"},
	} {
		l := newLog(t)
		x := fanout("x")
		x.Args = args("alternate-exchange", "ae")
		l.must(x)
		c.change(&x)
		r := l.do(x)
		if c.want == "" && r.Err != nil {
			t.Errorf("got %v", r.Err)
		}
		if c.want != "" {
			wantErr(t, r, mq.PreconditionFailed, "inequivalent arg "+c.want)
		}
	}
}
