package amqp

import (
	"testing"

	"warren/mq"
)

// What a peer announces costs nothing before it comes, and what has come is not
// copied over and over.
func TestALargeBodyIsGivenRoomForWhatHasCome(t *testing.T) {
	const total = 128 << 20
	for _, frame := range []int{4088, 65528, 128 << 10, 131064} { // 8 bytes less than frame_max, ordinarily
		c, payload := mq.NewContent("", "q", []byte{0, 0}, eagerBytes), make([]byte, frame)
		most, before := 0, cap(c)
		for missing := uint64(total); missing > 0; {
			have, piece := len(c), min(frame, int(missing))
			if c = grow(c, piece, missing); cap(c) != before {
				most, before = max(most, have), cap(c)
			}
			if cap(c) > max(2*eagerBytes, trustedShare*(have+piece)) {
				t.Fatalf("room for %d bytes when %d have come", cap(c), have+piece)
			}
			c = append(c, payload[:piece]...)
			missing -= uint64(piece)
		}
		if cap(c) != len(c) {
			t.Errorf("frames of %d: room for %d bytes more than there are", frame, cap(c)-len(c))
		}
		if most > total/trustedShare+eagerBytes {
			t.Errorf("frames of %d: %d bytes were copied at once", frame, most)
		}
	}
}
