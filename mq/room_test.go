package mq

import (
	"bytes"
	"testing"
)

func TestRoomIsEmptyAndIsFilledWithoutMoving(t *testing.T) {
	for _, n := range []int{0, 1, 100, 3 << 20} {
		b := Room(n)
		if len(b) != 0 || cap(b) != n {
			t.Fatalf("of %d: %d bytes, room for %d", n, len(b), cap(b))
		}
		want := bytes.Repeat([]byte{7}, n)
		got := append(b, want...)
		if !bytes.Equal(got, want) {
			t.Errorf("of %d: other bytes than were put there", n)
		}
		if n > 0 && &got[0] != &b[:1][0] {
			t.Errorf("of %d: moved", n)
		}
	}
}

func TestWhatIsJoinedIsTheSameWithRoomBehind(t *testing.T) {
	for _, n := range []int{0, 1, copyBytes, 3*copyBytes + 1} {
		part := bytes.Repeat([]byte("warren"), n)[:n]
		want := append([]byte("head"), part...)
		got := Joined(n+14, []byte("head"), part)
		if !bytes.Equal(got, want) || cap(got) != n+14 {
			t.Errorf("of %d bytes: %d, room for %d", n, len(got), cap(got))
		}
	}
}
