package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"warren/management"
)

// reportingNode answers as a node that has the vhosts "/" and "v", and whose
// list of channels fails. It notes what it is asked.
func reportingNode(t *testing.T, asked *[]string) (dir string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req management.ControlRequest
		if r.URL.Path == management.ControlPath {
			_ = json.NewDecoder(r.Body).Decode(&req)
			*asked = append(*asked, req.Verb+" "+req.VHost)
		}
		switch req.Verb {
		case "list_channels":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"exit":69,"reason":"no answer"}`)
		case "list_vhosts":
			_, _ = io.WriteString(w, `{"rows":[{"name":"/"},{"name":"v"}]}`)
		case "cluster_status", "environment":
			_, _ = io.WriteString(w, `{"rows":[{"cluster_name":"c","key":"heartbeat","value":"60"}]}`)
		case "list_queues":
			_, _ = io.WriteString(w, `{"rows":[{"name":"q of `+req.VHost+`"}]}`)
		default:
			_, _ = io.WriteString(w, "{}\n")
		}
	}))
	t.Cleanup(srv.Close)
	dir = t.TempDir()
	leave(t, filepath.Join(dir, "a"), "node1", srv.URL, "s")
	return dir
}

func TestAReportHasAllPartsOfAllVHosts(t *testing.T) {
	var asked []string
	dir := reportingNode(t, &asked)
	out, exit, said := ctlOf(t, "", "--data-dir", dir, "report")
	if exit != 0 {
		t.Fatalf("exit %d: %s%s", exit, out, said)
	}
	want := []string{"cluster_status /", "environment /", "list_connections /", "list_channels /", "list_global_parameters /", "list_vhosts /"}
	for _, vhost := range []string{"/", "v"} {
		for _, part := range reportVHostParts() {
			want = append(want, part+" "+vhost)
		}
	}
	if !slices.Equal(asked, want) {
		t.Errorf("the node was asked\n%q, want\n%q", asked, want)
	}
	for _, want := range []string{
		"Reporting server status of node the local node ...\n\ncluster ", // status has no banner
		"\n\nApplication environment of node the local node ...\nheartbeat = 60\n",
		"\n\nListing channels ...\nError:\nno answer\n\nListing global runtime parameters ...\n", // what fails says so, and the rest follows
		"\n\nListing queues for vhost v ...\n" + strings.Join(queueColumns(), "\t") + "\nq of v\t",
		"\n\nListing policies for vhost \"v\" ...\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
}

func TestAReportHasAFormOfItsOwn(t *testing.T) {
	var asked []string
	dir := reportingNode(t, &asked)
	if _, exit, said := ctlOf(t, "", "--data-dir", dir, "report", "--formatter", "json"); exit != 64 || !strings.Contains(said, "Only report formatter is supported") || len(asked) > 0 {
		t.Errorf("json: exit %d, %s; the node was asked %q", exit, said, asked)
	}
	if out, exit, said := ctlOf(t, "", "--data-dir", dir, "report", "-q", "--formatter", "report"); exit != 0 || strings.Contains(out, " ...") {
		t.Errorf("quiet: exit %d, %s%s", exit, out, said)
	}
}
