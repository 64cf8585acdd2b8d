package raftlog

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"warren/storage/vfs"
)

// notes is a log that can be read while it is written.
type notes struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// onceIn has f called in the first sync from now on.
func onceIn(fs *vfs.Mem, f func() error) {
	var done atomic.Bool
	fs.Inject(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync && !done.Swap(true) {
			return f()
		}
		return nil
	})
}

// settled is a WAL that makes no file by itself for a while: the next sync is a
// write's.
func settled(t *testing.T, fs *vfs.Mem, o Options) *WAL {
	t.Helper()
	w := openWAL(t, fs, o)
	eventually(t, func() bool {
		names, _ := fs.List("/wal")
		return len(names) == 2 && !strings.HasSuffix(names[1], newSuffix)
	})
	return w
}

func TestADiskIsSlowAfterASecondAndHungAfterFive(t *testing.T) {
	w := openWAL(t, vfs.NewMem(), walOptions(t))
	defer w.Close()
	b := open(t, t.TempDir()+"/log", Options{})
	for _, o := range []Options{w.opts, b.opts} {
		if o.SlowAfter != time.Second || o.HungAfter != 5*time.Second {
			t.Errorf("slow after %v, hung after %v", o.SlowAfter, o.HungAfter)
		}
	}
}

func TestASlowSyncIsLoggedAndCounted(t *testing.T) {
	fs, log := vfs.NewMem(), &notes{}
	o := walOptions(t)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	o.SlowAfter, o.HungAfter = time.Millisecond, 500*time.Millisecond
	o.Fatal = func(error) {} // a busy machine
	w := settled(t, fs, o)
	defer w.Close()
	onceIn(fs, func() error {
		for end := time.Now().Add(time.Minute); !strings.Contains(log.String(), "slow disk") && time.Now().Before(end); {
			<-time.After(time.Millisecond)
		}
		return nil
	})
	append1(t, group(t, w, 1), 1, 1, 1, 10)
	if got := group(t, w, 1).Stats().SlowWrites; got == 0 || !strings.Contains(log.String(), "folder=/wal") {
		t.Errorf("%d slow writes are counted, and the log says %s", got, log)
	}
}

func TestAHungSyncEndsTheProcess(t *testing.T) {
	fs, fatal := vfs.NewMem(), make(chan error, 1)
	o := walOptions(t)
	o.SlowAfter, o.HungAfter = time.Millisecond, 2*time.Millisecond
	o.Fatal = func(err error) {
		select {
		case fatal <- err:
		default: // a busy machine
		}
	}
	w := settled(t, fs, o)
	defer w.Close()
	var why error
	onceIn(fs, func() error { why = <-fatal; return nil })
	append1(t, group(t, w, 1), 1, 1, 1, 10)
	if !errors.Is(why, ErrHung) {
		t.Errorf("fatal: %v", why)
	}
}

// After a failed fsync nothing is stored any more, and the process ends before
// anybody is answered.
func TestAFailedSyncEndsTheProcessAtOnce(t *testing.T) {
	fs, broken := vfs.NewMem(), errors.New("broken")
	o := walOptions(t)
	var fatal []error
	answered := false
	o.Fatal = func(err error) {
		if answered {
			t.Error("somebody was answered before")
		}
		fatal = append(fatal, err)
	}
	w := settled(t, fs, o)
	g := group(t, w, 1)
	append1(t, g, 1, 1, 1, 10)
	onceIn(fs, func() error { return broken })
	err := g.StoreLog(entry(2, 1, 10))
	answered = true
	if !errors.Is(err, broken) || len(fatal) != 1 || !errors.Is(fatal[0], broken) {
		t.Errorf("got %v, fatal %v", err, fatal)
	}
	if err := g.StoreLog(entry(2, 1, 10)); err == nil {
		t.Error("the log goes on")
	}
	if last, _ := g.LastIndex(); last != 1 {
		t.Errorf("the log shows entry %d", last)
	}
	if err := w.Close(); err == nil {
		t.Error("Close has noted that all is synced")
	}
}
