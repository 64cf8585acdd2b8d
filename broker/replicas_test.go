package broker

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"testing"

	"warren/mq"
	"warren/storage/segment"
	"warren/storage/vfs"
)

// twin is one of several shards that are fed the same log.
type twin struct {
	*Shard
	t     *testing.T
	pager *segment.Pager
	runs  int // how often it began anew
	// saved is its latest snapshot, and how many entries are in it.
	saved   []byte
	entries int
}

func newTwin(t *testing.T) *twin {
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	w := &twin{t: t, pager: segment.NewPager(vfs.NewMem(), tinyMemory, math.MaxInt64, BodySense(), log)}
	t.Cleanup(func() { w.close(); w.pager.Close() })
	w.begin()
	return w
}

// begin makes the shard anew, with nothing in it.
func (w *twin) begin() {
	if w.Shard != nil {
		w.close()
	}
	w.runs++
	folder, err := w.pager.Folder(fmt.Sprint("/segments", w.runs))
	if err != nil {
		w.t.Fatal(err)
	}
	w.Shard = NewShard(1, nil, nil, nil, folder, slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
}

// save makes a snapshot, which has so many entries of the log.
func (w *twin) save(entries int) {
	snap, err := w.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	defer snap.Release()
	var b bytes.Buffer
	if _, err := snap.WriteTo(&b); err != nil {
		w.t.Fatal(err)
	}
	w.saved, w.entries = b.Bytes(), entries
}

// load takes over a snapshot and the log after it.
func (w *twin) load(snapshot []byte, after []Entry) {
	if snapshot != nil {
		if err := w.Restore(bytes.NewReader(snapshot)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.Apply(after)
}

// came says what the shard has come to.
func (w *twin) came() (hash, digest uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.Hash(), w.state.Digest()
}

// wantBodies holds the shard's messages, in memory or on disk, against those
// that the log makes.
func (w *twin) wantBodies(want map[bodyKey]body) {
	w.t.Helper()
	w.mu.Lock()
	v := w.bodies.View()
	w.mu.Unlock()
	defer v.Release()
	n := 0
	err := v.Each(func(q, seq uint64, r segment.Record) error {
		n++
		if got := (body{r.Flags, r.Priority, r.ExpiryMs, string(r.Body)}); got != want[bodyKey{mq.QueueID(q), mq.Seq(seq)}] {
			return fmt.Errorf("message %d of queue %d is %.60q", seq, q, got.content)
		}
		return nil
	})
	if err != nil || n != len(want) {
		w.t.Fatalf("%d messages, want %d; %v", n, len(want), err)
	}
}

func TestReplicasOfOneLogAgreeAtEveryIndexInStateAndBodies(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			log := newLogWriter(t, seed)
			twins := []*twin{newTwin(t), newTwin(t), newTwin(t)}
			for n := 1; n <= 500; n++ {
				e := log.next()
				hash, digest := log.state.Hash(), log.state.Digest()
				for i, w := range twins {
					w.Apply([]Entry{e})
					if h, d := w.came(); h != hash || d != digest {
						t.Fatalf("entry %d: replica %d has come to %x, %x; want %x, %x", e.Index, i, h, d, hash, digest)
					}
				}
				w, other := twins[log.rng.IntN(3)], twins[log.rng.IntN(3)]
				switch log.rng.IntN(60) {
				case 0:
					w.save(n)
				case 1: // a restart
					w.begin()
					w.load(w.saved, log.entries[w.entries:])
				case 2: // it was behind, and gets another one's snapshot
					if other.saved != nil {
						w.load(other.saved, log.entries[other.entries:])
					}
				case 3:
					w.wantBodies(log.bodies)
				}
			}
			out := uint64(0)
			for i, w := range twins {
				w.wantBodies(log.bodies)
				out += w.pager.Stats().ChunksOut
				for _, m := range w.standing().milestones {
					if d, ok := (&told{milestones: twins[0].standing().milestones}).at(m.index); ok && d != m.digest {
						t.Errorf("replica %d has another milestone at %d", i, m.index)
					}
				}
			}
			if out == 0 || len(twins[0].standing().milestones) == 0 {
				t.Errorf("%d chunks were paged out, milestones are %v", out, twins[0].standing().milestones)
			}
		})
	}
}
