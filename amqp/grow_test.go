package amqp

import (
	"testing"

	"warren/mq"
)

// What a peer announces costs nothing before it comes, and what has come is not
// copied over and over.
func TestALargeBodyIsGivenRoomForWhatHasCome(t *testing.T) {
	const total, piece = 128 << 20, 128 << 10
	c, frame := mq.NewContent("", "q", []byte{0, 0}, eagerBytes), make([]byte, piece)
	most, before := 0, cap(c)
	for missing := uint64(total); missing > 0; missing -= piece {
		have := len(c)
		if c = grow(c, piece, missing); cap(c) != before {
			most, before = max(most, have), cap(c)
		}
		if cap(c) > trustedShare*(have+piece) {
			t.Fatalf("room for %d bytes when %d have come", cap(c), have+piece)
		}
		c = append(c, frame...)
	}
	if cap(c) != len(c) {
		t.Errorf("room for %d bytes more than there are", cap(c)-len(c))
	}
	if most > total/trustedShare+eagerBytes {
		t.Errorf("%d bytes were copied at once", most)
	}
}
