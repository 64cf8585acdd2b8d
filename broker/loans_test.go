package broker

import (
	"bytes"
	"testing"

	"warren/internal/fields"
	"warren/mq"
)

// largeContent is a message that is lent, and not a whole number of pieces.
func largeContent() mq.Content {
	body := bytes.Repeat([]byte("0123456789abcdef"), pieceBytes/8+1)
	return append(mq.NewContent("x", "key", []byte{0, 0}, len(body)), body...)
}

func TestAPieceIsGivenToItsBorrowerOnly(t *testing.T) {
	c := largeContent()
	end := uint64(len(c.Body()))
	l := newLoans()
	number := l.lend("node2", c)
	for _, x := range []struct {
		name                string
		by                  mq.NodeID
		number, from, bytes uint64
		ok                  bool
	}{
		{"the first", "node2", number, 0, pieceBytes, true},
		{"the last", "node2", number, end - 7, 7, true},
		{"one byte", "node2", number, 5, 1, true},
		{"another node", "node3", number, 0, pieceBytes, false},
		{"another number", "node2", number + 1, 0, pieceBytes, false},
		{"nothing", "node2", number, 0, 0, false},
		{"too much", "node2", number, 0, pieceBytes + 1, false},
		{"beyond the end", "node2", number, end - 7, 8, false},
		{"after the end", "node2", number, end + 1, 1, false},
		{"an offset that overflows", "node2", number, 1<<64 - 1, 2, false},
	} {
		got, err := l.piece(x.by, x.number, x.from, x.bytes)
		if (err == nil) != x.ok {
			t.Errorf("%s: %v", x.name, err)
		} else if x.ok && !bytes.Equal(got, c.Body()[x.from:x.from+x.bytes]) {
			t.Errorf("%s: other bytes", x.name)
		}
	}
}

func TestALoanEndsWithItsBorrower(t *testing.T) {
	for _, x := range []struct {
		name string
		end  func(l *loans, number uint64)
		left bool
	}{
		{"done", func(l *loans, n uint64) { l.over("node2", n) }, false},
		{"done twice", func(l *loans, n uint64) { l.over("node2", n); l.over("node2", n) }, false},
		{"done, says another node", func(l *loans, n uint64) { l.over("node3", n) }, true},
		{"done with another", func(l *loans, n uint64) { l.over("node2", n+1) }, true},
		{"done with another, says nobody", func(l *loans, n uint64) { l.over("", n+1) }, true},
		{"lost", func(l *loans, _ uint64) { l.lost("node2") }, false},
		{"another node is lost", func(l *loans, _ uint64) { l.lost("node3") }, true},
	} {
		l := newLoans()
		number := l.lend("node2", largeContent())
		x.end(l, number)
		if _, err := l.piece("node2", number, 0, 1); (err == nil) != x.left {
			t.Errorf("%s: %v", x.name, err)
		}
		if left := len(l.open) == 1; left != x.left {
			t.Errorf("%s: the loan is kept: %v", x.name, left)
		}
	}
}

func TestWhatAnEarlierRunLentIsNoOtherBody(t *testing.T) {
	before, now := newLoans(), newLoans()
	old := before.lend("node2", largeContent())
	now.lend("node2", largeContent())
	if _, err := now.piece("node2", old, 0, 1); err == nil {
		t.Error("the number of an earlier run is good for a body of this one")
	}
}

func TestALentMessageIsReadAsItWasWritten(t *testing.T) {
	c := largeContent()
	f := appendLent(nil, c.Head(), len(c.Body()), 7)
	p := &parser{fields.Read(f)}
	m := parseBorrowed("node1", p)
	if p.Err() != nil || m.number != 7 || m.bytes() != len(c) || !bytes.Equal(m.head, c.Head()) {
		t.Errorf("got %+v, %v", m, p.Err())
	}
	for n := range f {
		if m := parseBorrowed("node1", &parser{fields.Read(f[:n:n])}); m != nil {
			t.Errorf("got %+v of %d bytes", m, n)
		}
	}
	for name, f := range map[string][]byte{
		"a head with a body": appendLent(nil, c, 1, 7),
		"a body too long":    appendLent(nil, c.Head(), borrowedBytesMax+1, 7),
		"a negative length":  appendLent(nil, c.Head(), -1, 7),
	} {
		p := &parser{fields.Read(f)}
		if m := parseBorrowed("node1", p); m != nil || p.Err() == nil {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}
