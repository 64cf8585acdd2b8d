package node

import (
	"net/http"
	"strings"
	"testing"

	"warren/management"
)

func TestACommandEndsTheNodeAndIsAnswered(t *testing.T) {
	n := start(t, alone(t, "a")).awaitReady()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.http+management.ControlPath, strings.NewReader(`{"verb":"stop"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.ControlSecret())
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the command is answered %s", resp.Status)
	}
	await(t, "the node to end by itself", func() bool { return len(n.ended) > 0 })
	n.stop() // which finds that it ended without an error
}
