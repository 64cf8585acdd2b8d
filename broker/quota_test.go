package broker

import (
	"testing"

	"warren/fsm/meta"
	"warren/mq"
)

func (h *house) limit(t *testing.T, setting, value string) {
	t.Helper()
	if _, err := h.nodes[0].Administer(t.Context(), meta.SettingPut{Name: setting, Value: value}); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, code mq.Code, text string) {
	t.Helper()
	if e, ok := err.(*mq.Error); !ok || e.Code != code || e.Text != text {
		t.Errorf("got %v, want %d %s", err, code, text)
	}
}

func TestConnectionsAreLimitedOverAllNodes(t *testing.T) {
	for _, c := range []struct{ setting, text string }{
		{meta.VHostLimits("/"), "access to vhost '/' refused for user 'guest': connection limit (2) is reached"},
		{meta.UserLimits("guest"), "connection refused for user 'guest': user connection limit (2) is reached"},
	} {
		h := newHouse(t, 3, 1)
		h.limit(t, c.setting, `{"max-connections":2}`)
		first, second := h.nodes[0].open(t), h.nodes[1].open(t)
		_, err := h.nodes[2].Open(t.Context(), "guest", "/", func(*mq.Error) {})
		wantError(t, err, mq.NotAllowed, c.text)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		h.nodes[2].open(t)
		h.limit(t, c.setting, `{"max-connections":-1}`)
		h.nodes[2].open(t)
		_ = second
	}
}

func TestChannelsOfAUserAreLimitedOverAllNodes(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.limit(t, meta.UserLimits("guest"), `{"max-channels":2}`)
	a, b := h.nodes[0].open(t), h.nodes[1].open(t)
	for _, s := range []*Session{a, b} {
		if err := s.OpenChannel(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, b.OpenChannel(t.Context()), mq.NotAllowed, "number of channels opened for user 'guest' has reached the maximum allowed user limit of (2)")
	a.CloseChannel()
	if err := b.OpenChannel(t.Context()); err != nil {
		t.Errorf("when another has closed: %v", err)
	}
}

func TestQueuesOfAVHostAreLimited(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.limit(t, meta.VHostLimits("/"), `{"max-queues":1}`)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, durable) // is there already
	_, err := s.Change(t.Context(), mq.QueueDeclare{Name: "another"})
	wantError(t, err, mq.PreconditionFailed, "cannot declare queue 'another': queue limit in vhost '/' (1) is reached")
}

func TestLimitsGoWithWhatTheyLimit(t *testing.T) {
	h := newHouse(t, 1, 1)
	n := h.nodes[0]
	for _, op := range []meta.Op{
		meta.VHostPut{Name: "v"}, meta.UserAdd{Name: "u"},
		meta.SettingPut{Name: meta.VHostLimits("v"), Value: `{"max-queues":0}`},
		meta.SettingPut{Name: meta.UserLimits("u"), Value: `{"max-channels":0}`},
		meta.VHostDelete{Name: "v"}, meta.UserDelete{Name: "u"},
	} {
		if _, err := n.Administer(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := n.View().VHostQueues("v"); ok {
		t.Error("a vhost's stay")
	}
	if _, ok := n.View().UserChannels("u"); ok {
		t.Error("a user's stay")
	}
	if _, err := n.Administer(t.Context(), meta.SettingPut{Name: levelSetting, Value: "9"}); err == nil {
		t.Error("an operator can set anything")
	}
}
