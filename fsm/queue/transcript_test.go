package queue

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"warren/mq"
)

var rewrite = flag.Bool("rewrite", false, "write what happened into testdata/*.txt")

// A transcript is lines that do something, each followed by what came of it,
// indented. A line is one entry, its parts separated by ";":
//
//	batch NODE SESSION SEQ: enq Q,Q BODY | settle Q FIRST-LAST | ...
//	refuse MESSAGE.PLACE,MESSAGE.PLACE+ NODE SESSION SEQ: ... (+ buries)
//	return Q SEQ=FAILED/ACQUIRED,...
//	later Q SEQ=FAILED/ACQUIRED@DUE,...
//	drop Q FIRST-LAST | reserve Q UPTO | purge Q UPTO TOKEN EXCEPT,... | delete Q
//	term N       (alone) the entries after it are logged in term N, decided in the same
//	decided N    (alone) ... decided in N
//	show         (alone) the state
//	restart      (alone) snapshot and restore
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func play(t *testing.T, text string) string {
	s, logged, decided := New(), uint64(1), uint64(1)
	var out strings.Builder
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line)
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "#":
		case f[0] == "term":
			logged = number(t, f[1])
			decided = logged
		case f[0] == "decided":
			decided = number(t, f[1])
		case f[0] == "show":
			show(&out, s)
		case f[0] == "restart":
			b := s.AppendTo(nil)
			s = New()
			if err := s.Restore(b); err != nil {
				t.Fatal(err)
			}
		default:
			entry := AppendEntry(nil, decided, 0)
			for part := range strings.SplitSeq(line, ";") {
				entry = append(entry, encode(t, part)...)
			}
			var fx Effects
			if err := s.Apply(logged, entry, &fx); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			tell(&out, &fx)
		}
	}
	return out.String()
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func numbers[T ~uint64](t *testing.T, s string) (all []T) {
	t.Helper()
	for f := range strings.SplitSeq(s, ",") {
		all = append(all, T(number(t, f)))
	}
	return all
}

func encode(t *testing.T, part string) []byte {
	t.Helper()
	f := strings.Fields(part)
	q := func() mq.QueueID { return mq.QueueID(number(t, f[1])) }
	span := func() (mq.Seq, mq.Seq) {
		first, last, _ := strings.Cut(f[2], "-")
		return mq.Seq(number(t, first)), mq.Seq(number(t, last))
	}
	switch f[0] {
	case "batch":
		o, ops := batchOf(t, part)
		return AppendBatch(nil, o, ops)
	case "refuse":
		var all []Refusal
		for pair := range strings.SplitSeq(f[1], ",") {
			pair, bury := strings.CutSuffix(pair, "+")
			message, place, _ := strings.Cut(pair, ".")
			all = append(all, Refusal{uint32(number(t, message)), uint32(number(t, place)), bury})
		}
		o, ops := batchOf(t, strings.Replace(part, f[1], "", 1))
		return AppendRefusing(nil, o, all, ops)
	case "enq":
		return AppendEnqueue(nil, numbers[mq.QueueID](t, f[1]), Persistent, 0, 0, []byte(f[2]))
	case "settle":
		first, last := span()
		return AppendSettle(nil, q(), first, last)
	case "drop":
		first, last := span()
		return AppendDrop(nil, q(), first, last)
	case "return":
		return AppendReturn(nil, q(), returnsOf(t, q(), f[2]))
	case "later":
		return AppendReturnLater(nil, q(), returnsOf(t, q(), f[2]))
	case "reserve":
		return AppendReserve(nil, q(), mq.Seq(number(t, f[2])))
	case "purge":
		var except []mq.Seq
		if len(f) > 4 {
			except = numbers[mq.Seq](t, f[4])
		}
		return AppendPurge(nil, q(), mq.Seq(number(t, f[2])), except, number(t, f[3]))
	case "delete":
		return AppendDelete(nil, q())
	}
	t.Fatalf("what is %q?", part)
	return nil
}

// returnsOf reads SEQ=FAILED/ACQUIRED@DUE,...; without @DUE it is 0.
func returnsOf(t *testing.T, q mq.QueueID, all string) (back []Returned) {
	t.Helper()
	for one := range strings.SplitSeq(all, ",") {
		one, due, later := strings.Cut(one, "@")
		seq, counts, _ := strings.Cut(one, "=")
		failed, acquired, _ := strings.Cut(counts, "/")
		r := Returned{Queue: q, Seq: mq.Seq(number(t, seq)), Failed: uint32(number(t, failed)), Acquired: uint32(number(t, acquired))}
		if later {
			r.DueMs = int64(number(t, due))
		}
		back = append(back, r)
	}
	return back
}

// batchOf reads WORD NODE SESSION SEQ: operations.
func batchOf(t *testing.T, part string) (o Origin, b []byte) {
	t.Helper()
	head, ops, _ := strings.Cut(part, ":")
	f := strings.Fields(head)
	o = Origin{uint32(number(t, f[1])), mq.SessionID(number(t, f[2])), number(t, f[3])}
	for op := range strings.SplitSeq(ops, "|") {
		if strings.TrimSpace(op) != "" {
			b = append(b, encode(t, op)...)
		}
	}
	return o, b
}

func tell(out *strings.Builder, fx *Effects) {
	for _, r := range fx.Results {
		code := []string{"applied", "duplicate", "gap", "ended"}[r.Code]
		fmt.Fprintf(out, "  node %d session %d seq %d: %s, last %d", r.Node, r.Session, r.Seq, code, r.Last)
		for _, run := range r.Refused {
			fmt.Fprintf(out, ", refused %d..%d", run.First, run.Last)
		}
		fmt.Fprintln(out)
	}
	for _, e := range fx.Enqueued {
		buried := ""
		if e.Buried {
			buried = ", buried"
		}
		fmt.Fprintf(out, "  queue %d: +%d %s%s\n", e.Queue, e.Seq, e.Content, buried)
	}
	for _, r := range fx.Settled {
		fmt.Fprintf(out, "  queue %d: -%d..%d\n", r.Queue, r.First, r.Last)
	}
	for _, r := range fx.Reserved {
		fmt.Fprintf(out, "  queue %d: high water %d\n", r.Queue, r.HighWater)
	}
	for _, r := range fx.Returned {
		due := ""
		if r.DueMs != 0 {
			due = fmt.Sprintf(", due at %d", r.DueMs)
		}
		fmt.Fprintf(out, "  queue %d: %d came back, failed %d of %d%s\n", r.Queue, r.Seq, r.Failed, r.Acquired, due)
	}
	for _, p := range fx.Purged {
		fmt.Fprintf(out, "  queue %d: purged %d for %d\n", p.Queue, p.Count, p.Token)
	}
	for _, id := range fx.Deleted {
		fmt.Fprintf(out, "  queue %d: deleted\n", id)
	}
}

func show(out *strings.Builder, s *State) {
	for _, id := range s.Queues() {
		q := s.Queue(id)
		var live []mq.Seq
		for seq, ok := q.Next(0); ok; seq, ok = q.Next(seq + 1) {
			live = append(live, seq)
		}
		fmt.Fprintf(out, "  queue %d: live %v last %d high water %d\n", id, slices.Clip(live), q.Last(), q.HighWater())
	}
	fmt.Fprintf(out, "  %x\n  hash %016x\n", s.AppendTo(nil), s.Hash())
}
