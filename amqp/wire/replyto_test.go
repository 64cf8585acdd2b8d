package wire

import (
	"reflect"
	"testing"
	"time"

	"warren/mq"
)

func TestReplyToIsReplacedAndNothingElse(t *testing.T) {
	full := Properties{
		Present: ^hasUnknown, ContentType: "text", ContentEncoding: "gzip", Headers: mq.Table{{Key: "k", Value: "v"}},
		DeliveryMode: 2, Priority: 3, CorrelationID: "c", ReplyTo: "here", Expiration: "4", MessageID: "m",
		Timestamp: time.Unix(5, 0).UTC(), Type: "t", UserID: "u", AppID: "a", reservedCluster: "r",
	}
	for name, p := range map[string]Properties{
		"all":  full,
		"only": {Present: HasReplyTo, ReplyTo: "here"},
		"some": {Present: HasHeaders | HasPriority | HasReplyTo | HasTimestamp, Priority: 1, ReplyTo: "here", Timestamp: time.Unix(5, 0).UTC()},
	} {
		b := AppendProperties(nil, p)
		if got := string(PeekReplyTo(b)); got != "here" {
			t.Errorf("%s: got %q", name, got)
		}
		got, err := ParseProperties(WithReplyTo(b, "there, and longer"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := p
		want.ReplyTo = "there, and longer"
		if want.Headers == nil && got.Has(HasHeaders) {
			got.Headers = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v want %+v", name, got, want)
		}
	}
	if got := PeekReplyTo(AppendProperties(nil, Properties{Present: HasCorrelationID, CorrelationID: "c"})); got != nil {
		t.Errorf("got %q of none", got)
	}
}
