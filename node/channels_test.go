package node

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"warren/management"
)

// rows runs a command that lists something.
func rows(t *testing.T, n *running, verb string) []management.Row {
	t.Helper()
	b, err := json.Marshal(management.ControlRequest{Verb: verb, VHost: "/"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", n.http+management.ControlPath, strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("guest", "guest")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var reply management.ControlReply
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, err)
	}
	return reply.Rows
}

func TestAnyNodeListsTheChannelsAndConsumersOfAll(t *testing.T) {
	one := start(t, alone(t, "one")).awaitReady()
	two := start(t, joining(t, "two", one)).awaitReady()
	here, there := one.channel(), two.channel()
	declare(t, here, "q")
	if _, err := here.Consume("q", "here", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Consume("q", "there", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*running{one, two} {
		await(t, "the consumers of both at "+n.cfg.Name, func() bool {
			tags := map[any]bool{}
			for _, r := range rows(t, n, "list_consumers") {
				tags[r["consumer_tag"]] = true
			}
			return len(tags) == 2 && tags["here"] && tags["there"]
		})
		nodes := map[any]bool{}
		for _, r := range rows(t, n, "list_channels") {
			nodes[r["node"]] = true
		}
		if !nodes["one"] || !nodes["two"] {
			t.Errorf("%s lists the channels of %v", n.cfg.Name, nodes)
		}
	}
}

func TestALongListIsToldInPages(t *testing.T) {
	all := make([]string, 10)
	for i := range all {
		all[i] = strings.Repeat(string(rune('a'+i)), pageBytesMax/3)
	}
	var got []string
	for ask := (listRequest{}); ; {
		b, err := answerList(all, ask)
		if err != nil {
			t.Fatal(err)
		}
		var p listPage[string]
		if err := json.Unmarshal(b, &p); err != nil || len(b) > pageBytesMax+1000 {
			t.Fatal(len(b), err)
		}
		got = append(got, p.Items...)
		if p.Next <= ask.After {
			break
		}
		ask.After = p.Next
	}
	if strings.Join(got, "") != strings.Join(all, "") {
		t.Errorf("%d items of %d", len(got), len(all))
	}
}
