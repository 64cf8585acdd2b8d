package cluster

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A node that is started with the other log store than its groups have names
// the setting, and goes on as before with the right one.
func TestTheLogStoreDoesNotChangeSilently(t *testing.T) {
	for _, c := range []struct{ first, second string }{{LogStoreWAL, LogStoreBolt}, {LogStoreBolt, LogStoreWAL}} {
		t.Run(c.first+" then "+c.second, func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir(), LogStore: c.first, Listen: "127.0.0.1:0"}
			open := func(store string) (*Cluster, error) {
				cfg.LogStore = store
				return New(cfg, slog.New(slog.DiscardHandler))
			}
			n, err := open(c.first)
			must(t, err)
			seat := groupSeat{id: n.id, dir: filepath.Join(cfg.DataDir, groupsDir), wal: n.wal, fatal: func(err error) { t.Error(err) }}
			for gid, meta := range []bool{true, false} {
				s, err := openStores(seat, uint64(gid), meta, slog.New(slog.DiscardHandler))
				must(t, err)
				must(t, s.close())
			}
			must(t, n.Close(t.Context()))
			if _, err := open(c.second); err == nil || !strings.Contains(err.Error(), "raft.log_store = "+c.first) {
				t.Errorf("started with %s: %v", c.second, err)
			}
			n, err = open(c.first)
			must(t, err)
			must(t, n.Close(t.Context()))
		})
	}
}

// A shared log that somebody removed is no empty log.
func TestAMissingWALIsNotAnEmptyOne(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0"}
	n, err := New(cfg, slog.New(slog.DiscardHandler))
	must(t, err)
	seat := groupSeat{id: n.id, dir: filepath.Join(cfg.DataDir, groupsDir), wal: n.wal, fatal: func(err error) { t.Error(err) }}
	s, err := openStores(seat, 1, false, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, s.close())
	must(t, n.Close(t.Context()))
	must(t, os.RemoveAll(filepath.Join(cfg.DataDir, walDir)))
	for range 2 {
		if _, err := New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "restore it") {
			t.Errorf("got %v", err)
		}
	}
}
