package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

func open(t testing.TB, path string, o Options) *Bolt {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	if o.Fatal == nil {
		o.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	b, err := OpenBolt(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func entry(index, term uint64, n int) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand,
		Data: bytes.Repeat([]byte{byte(index)}, n), AppendedAt: time.Unix(int64(index), 0).UTC()}
}

func store(t testing.TB, b *Bolt, first, last, term uint64, n int) {
	t.Helper()
	for i := first; i <= last; i++ {
		if err := b.StoreLog(entry(i, term, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantEntry(t testing.TB, b *Bolt, index, term uint64, n int) {
	t.Helper()
	var got raft.Log
	if err := b.GetLog(index, &got); err != nil {
		t.Fatalf("GetLog(%d): %v", index, err)
	}
	if want := entry(index, term, n); got.Index != index || got.Term != term || !bytes.Equal(got.Data, want.Data) ||
		!got.AppendedAt.Equal(want.AppendedAt) {
		t.Fatalf("entry %d: got index %d term %d with %d bytes", index, got.Index, got.Term, len(got.Data))
	}
}

func TestAnEntryReadsTheSameFromMemoryFromTheFileAndAfterAReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	b := open(t, path, Options{CacheBytes: 10 * (1000 + entryOverhead)})
	store(t, b, 1, 50, 1, 1000)
	for i := uint64(1); i <= 50; i++ {
		wantEntry(t, b, i, 1, 1000)
	}
	if s := b.Stats(); s.CacheHits != 10 || s.CacheMisses != 40 {
		t.Errorf("hits %d, misses %d; want 10, 40: the cache is bounded in bytes", s.CacheHits, s.CacheMisses)
	}
	b.Close()
	b = open(t, path, Options{})
	for i := uint64(1); i <= 50; i++ {
		wantEntry(t, b, i, 1, 1000)
	}
}

func TestDeletedEntriesAreGoneFromMemoryToo(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, last uint64
	}{
		{"prefix", 1, 20}, {"prefix within the cache", 1, 45}, {"suffix", 48, 50}, {"suffix beyond the cache", 10, 50}, {"everything", 1, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t, filepath.Join(t.TempDir(), "log"), Options{CacheBytes: 10 * (10 + entryOverhead)})
			store(t, b, 1, 50, 1, 10)
			if err := b.DeleteRange(c.first, c.last); err != nil {
				t.Fatal(err)
			}
			for i := uint64(1); i <= 50; i++ {
				var l raft.Log
				err := b.GetLog(i, &l)
				if gone := i >= c.first && i <= c.last; gone != errors.Is(err, raft.ErrLogNotFound) {
					t.Errorf("entry %d: %v", i, err)
				}
			}
		})
	}
}

func TestAConflictingSuffixIsReplaced(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "log"), Options{})
	store(t, b, 1, 10, 1, 10)
	if err := b.DeleteRange(6, 10); err != nil {
		t.Fatal(err)
	}
	store(t, b, 6, 8, 2, 20)
	wantEntry(t, b, 5, 1, 10)
	wantEntry(t, b, 6, 2, 20)
	wantEntry(t, b, 8, 2, 20)
	if last, _ := b.LastIndex(); last != 8 {
		t.Errorf("last index %d, want 8", last)
	}
}

func TestAGapAfterAnInstalledSnapshotIsNotPapered(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "log"), Options{})
	store(t, b, 1, 3, 1, 10)
	store(t, b, 100, 102, 2, 10)
	wantEntry(t, b, 101, 2, 10)
	wantEntry(t, b, 2, 1, 10) // from the file
	var l raft.Log
	if err := b.GetLog(50, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("entry in the gap: %v", err)
	}
}

func TestAMissingTermIsNotFoundInRaftsWords(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "log"), Options{})
	if _, err := b.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Errorf("got %v: raft compares the text", err)
	}
	if err := b.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if got, err := b.GetUint64([]byte("CurrentTerm")); err != nil || got != 7 {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestAFailedWriteIsFatal(t *testing.T) {
	var fatal []error
	b := open(t, filepath.Join(t.TempDir(), "log"), Options{Fatal: func(err error) { fatal = append(fatal, err) }})
	store(t, b, 1, 3, 1, 10)
	b.BoltStore.Close() // every write fails from here on
	if err := b.StoreLog(entry(4, 1, 10)); err == nil {
		t.Fatal("stored into a closed file")
	}
	if err := b.SetUint64([]byte("CurrentTerm"), 2); err == nil {
		t.Fatal("set in a closed file")
	}
	if len(fatal) != 2 {
		t.Errorf("Fatal was called %d times, want 2: %v", len(fatal), fatal)
	}
	var l raft.Log
	if err := b.GetLog(4, &l); err == nil {
		t.Error("an entry that was not stored can be read")
	}
}

func TestAHungDiskEndsTheProcess(t *testing.T) {
	fatal := make(chan error, 1)
	b := open(t, filepath.Join(t.TempDir(), "log"), Options{Fatal: func(err error) { fatal <- err }})
	b.opts.SlowAfter, b.opts.HungAfter = time.Millisecond, 2*time.Millisecond // not before: a busy disk is as slow
	var why error
	if err := b.write("store entries", func() error { why = <-fatal; return nil }); err != nil {
		t.Fatal(err)
	}
	if why == nil || !strings.Contains(why.Error(), "has not answered") {
		t.Errorf("fatal: %v", why)
	}
	if got := b.Stats().SlowWrites; got != 1 {
		t.Errorf("slow writes %d, want 1", got)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// openLogs makes n logs of a kind.
func openLogs(b *testing.B, kind string, n int) (logs []raft.LogStore) {
	if kind == "boltdb" {
		for i := range n {
			logs = append(logs, open(b, filepath.Join(b.TempDir(), fmt.Sprint(i)), Options{}))
		}
		return logs
	}
	w, err := OpenWAL(vfs.OS{}, filepath.Join(b.TempDir(), "wal"), Options{
		Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { b.Error(err) },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := w.Close(); err != nil {
			b.Error(err)
		}
	})
	for i := range n {
		logs = append(logs, group(b, w, uint64(i+1)))
	}
	return logs
}

// BenchmarkStoreLogs stores entries one by one, in each of some groups at once.
func BenchmarkStoreLogs(b *testing.B) {
	for _, kind := range []string{"boltdb", "wal"} {
		for _, groups := range []int{1, 6} {
			for _, size := range []int{1 << 10, 16 << 10, 256 << 10} {
				b.Run(fmt.Sprintf("%s/groups=%d/%dKiB", kind, groups, size>>10), func(b *testing.B) {
					logs := openLogs(b, kind, groups)
					data := make([]byte, size)
					each := (b.N + groups - 1) / groups
					took := make([][]time.Duration, groups)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					before := cpuTime()
					var work sync.WaitGroup
					for i, s := range logs {
						work.Go(func() { took[i] = storeMany(b, s, each, data) })
					}
					work.Wait()
					b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
					all := slices.Concat(took...)
					slices.Sort(all)
					b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
					b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, "p99-µs")
				})
			}
		}
	}
}

func storeMany(b *testing.B, s raft.LogStore, n int, data []byte) (took []time.Duration) {
	for i := range n {
		index, start := uint64(i+1), time.Now()
		if err := s.StoreLog(&raft.Log{Index: index, Term: 1, Data: data}); err != nil {
			b.Error(err)
			return took
		}
		took = append(took, time.Since(start))
		if index%2000 == 0 {
			first, _ := s.FirstIndex()
			if err := s.DeleteRange(first, index-256); err != nil {
				b.Error(err)
			}
		}
	}
	return took
}

func BenchmarkGetLog(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 10, 256 << 10} {
		for _, cache := range []int64{4 << 20, -1} {
			b.Run(fmt.Sprintf("%dKiB/cache=%v", size>>10, cache > 0), func(b *testing.B) {
				s := open(b, filepath.Join(b.TempDir(), "log"), Options{CacheBytes: cache})
				store(b, s, 1, 4, 1, size)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					var l raft.Log
					if err := s.GetLog(4, &l); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
