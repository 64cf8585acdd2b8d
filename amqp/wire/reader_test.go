package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/iotest"

	"warren/mq"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func TestFramesMatchTheirBytesBothWays(t *testing.T) {
	for claim, c := range map[string]struct {
		f     Frame
		bytes string
	}{
		"method":    {Frame{FrameMethod, 1, []byte{0, 20, 0, 41}}, "01 0001 00000004 00140029 ce"},
		"header":    {Frame{FrameHeader, 65535, []byte{1}}, "02 ffff 00000001 01 ce"},
		"body":      {Frame{FrameBody, 2, []byte("abc")}, "03 0002 00000003 616263 ce"},
		"no body":   {Frame{FrameBody, 2, nil}, "03 0002 00000000 ce"},
		"heartbeat": {Frame{FrameHeartbeat, 0, nil}, "08 0000 00000000 ce"},
	} {
		b := unhex(t, c.bytes)
		if got := AppendFrame(nil, c.f); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded %x, want %x", claim, got, b)
		}
		r := NewReader(bytes.NewReader(b), 0)
		f, err := r.Next()
		if err != nil || f.Type != c.f.Type || f.Channel != c.f.Channel || !bytes.Equal(f.Payload, c.f.Payload) {
			t.Errorf("%s: decoded %+v, %v", claim, f, err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: then %v, want io.EOF", claim, err)
		}
	}
	if got := AppendHeartbeat(nil); !bytes.Equal(got, unhex(t, "08 0000 00000000 ce")) {
		t.Errorf("heartbeat encoded as %x", got)
	}
}

func TestBadFrames(t *testing.T) {
	for claim, c := range map[string]struct {
		bytes string
		code  mq.Code
		text  string
		lost  bool // nothing can be read behind it
	}{
		"wrong frame end": {"01 0001 00000004 00140029 00", mq.FrameError,
			"type 1, all octets = <<0,20,0,41>>: {invalid_frame_end_marker,0}", true},
		"too large by one": {"03 0001 00020001", mq.FrameError,
			"type 3, all octets = <<>>: {frame_too_large,131073,131064}", true},
		"4 GiB": {"01 0001 ffffffff", mq.FrameError, "frame_too_large,4294967295", true},
		"a web browser": {hexOf([]byte("GET / HTTP/1.1\r\n\r\n")), mq.FrameError,
			"type 71, all octets = <<>>: {frame_too_large,", true},
		"unknown type": {"04 0000 00000003 616263 ce", mq.FrameError,
			`type 4, all octets = <<"abc">>: unknown_frame`, false},
		"long unknown frame": {"04 0000 00000011" + "0102030405060708090a0b0c0d0e0f1011 ce", mq.FrameError,
			"first 16 octets = <<1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16>>: unknown_frame", false},
		"heartbeat with a payload": {"08 0000 00000001 01 ce", mq.FrameError, "unknown_frame", false},
		"heartbeat on a channel":   {"08 0001 00000000 ce", mq.UnexpectedFrame, "type 8, all octets = <<>>", false},
	} {
		t.Run(claim, func(t *testing.T) {
			in := append(unhex(t, c.bytes), AppendHeartbeat(nil)...)
			r := NewReader(bytes.NewReader(in), 0)
			_, err := r.Next()
			wantError(t, err, c.code, c.text)
			if !r.Ready() {
				t.Error("not ready, though what follows is buffered")
			}
			f, err := r.Next()
			if c.lost {
				wantError(t, err, c.code, c.text)
			} else if err != nil || f.Type != FrameHeartbeat {
				t.Errorf("then %+v, %v", f, err)
			}
		})
	}
}

func TestPayloadMayFillTheWholeFrameMax(t *testing.T) {
	in := AppendFrame(nil, Frame{FrameBody, 1, make([]byte, FrameMaxDefault)})
	if _, err := NewReader(bytes.NewReader(in), FrameMaxDefault).Next(); err != nil {
		t.Error(err)
	}
}

func TestSetFrameMaxTakesHoldAtOnce(t *testing.T) {
	frame := AppendFrame(nil, Frame{FrameBody, 1, make([]byte, 9000)})
	r := NewReader(bytes.NewReader(bytes.Repeat(frame, 2)), 8192)
	r.SetFrameMax(131072)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	r.SetFrameMax(8192)
	_, err := r.Next()
	wantError(t, err, mq.FrameError, "{frame_too_large,9000,8184}")
}

func TestStreamThatEndsInsideAFrameIsUnexpectedEOF(t *testing.T) {
	frame := AppendAck(nil, 1, 1, false)
	for n := 1; n < len(frame); n++ {
		if _, err := NewReader(bytes.NewReader(frame[:n]), 0).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("after %d octets: %v", n, err)
		}
	}
}

func TestReadyOnlyWhenNextWillNotRead(t *testing.T) {
	frame := AppendAck(nil, 1, 1, false)
	two := append(bytes.Clone(frame), frame...)
	r := NewReader(io.MultiReader(bytes.NewReader(append(two, frame[:9]...)), bytes.NewReader(frame[9:])), 0)
	for i, want := range []bool{false, true, false, false} {
		if got := r.Ready(); got != want {
			t.Errorf("before frame %d: ready %v, want %v", i, got, want)
		}
		if _, err := r.Next(); i < 3 && err != nil || i == 3 && err != io.EOF {
			t.Errorf("frame %d: %v", i, err)
		}
	}
	if r.Buffered() != 0 {
		t.Errorf("%d octets left", r.Buffered())
	}
}

func TestNextGoesOnAfterATimeout(t *testing.T) {
	frame := AppendAck(nil, 1, 1, false)
	r := NewReader(io.MultiReader(
		bytes.NewReader(frame[:5]), iotest.ErrReader(os.ErrDeadlineExceeded)), 0)
	if _, err := r.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	r.r = bytes.NewReader(frame[5:])
	if f, err := r.Next(); err != nil || !bytes.Equal(f.Payload, payload(frame)) {
		t.Errorf("%+v, %v", f, err)
	}
}

// idle is a Reader that never has anything.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestAReaderThatNeverAnswersIsGivenUp(t *testing.T) {
	if _, err := NewReader(idle{}, 0).Next(); err != io.ErrNoProgress {
		t.Error(err)
	}
}

// stream is count frames with payloads of up to bytesMax octets that can be
// told apart.
func stream(rng *rand.Rand, count, bytesMax int) (in []byte, frames []Frame) {
	for range count {
		p := make([]byte, rng.IntN(bytesMax+1))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		f := Frame{uint8(1 + rng.IntN(3)), uint16(rng.Uint32()), p}
		frames = append(frames, f)
		in = AppendFrame(in, f)
	}
	return in, frames
}

// pieces reads at most a random number of bytes at a time.
type pieces struct {
	r    io.Reader
	rng  *rand.Rand
	most int
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), 1+p.rng.IntN(p.most))]) }

func TestFramesComeWholeHoweverTheStreamIsCut(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		frameMax := []int{4096, 8192, 131072, 1 << 20}[rng.IntN(4)]
		in, want := stream(rng, 20, min(frameMax-FrameOverhead, 300_000)/(1+rng.IntN(50)))
		r := NewReader(&pieces{bytes.NewReader(in), rng, []int{1, 10, 5000, 1 << 20}[rng.IntN(4)]}, uint32(frameMax))
		for i, w := range want {
			f, err := r.Next()
			if err != nil || f.Type != w.Type || f.Channel != w.Channel || !bytes.Equal(f.Payload, w.Payload) {
				t.Fatalf("seed %d, frame %d: %v", seed, i, err)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestAnIdleConnectionHoldsLittle(t *testing.T) {
	busy := bytes.Repeat(AppendFrame(nil, Frame{FrameBody, 1, make([]byte, 20_000)}), 40)
	r := NewReader(bytes.NewReader(busy), 0)
	for range 40 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.buf) != bufferBytesMax {
		t.Fatalf("busy connection holds %d bytes", len(r.buf))
	}
	for range 5*smallReadsMax + 1 {
		r.r = bytes.NewReader(AppendHeartbeat(nil))
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.buf) != bufferBytesMin {
		t.Errorf("idle connection holds %d bytes", len(r.buf))
	}
}

func TestAnnouncingALargeFrameCostsNothing(t *testing.T) {
	in := append(unhex(t, "03 0001 10000000"), make([]byte, 1000)...)
	r := NewReader(bytes.NewReader(in), 1<<30)
	if _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if len(r.buf) > bufferBytesMin {
		t.Errorf("%d bytes of buffer for %d of input", len(r.buf), len(in))
	}
}

func TestBodyIsSplitToFitFrameMax(t *testing.T) {
	body := make([]byte, 10_000)
	for i := range body {
		body[i] = byte(i)
	}
	for _, c := range []struct {
		frameMax uint32
		frames   int
	}{{4096, 3}, {8192, 2}, {10_008, 1}, {10_007, 2}, {0, 1}, {1, 3}} {
		r := NewReader(bytes.NewReader(AppendBody(nil, 1, body, c.frameMax)), 0)
		var got []byte
		frames := 0
		for {
			f, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.frameMax >= FrameMin && len(f.Payload)+FrameOverhead > int(c.frameMax) {
				t.Errorf("frame-max %d: a frame of %d", c.frameMax, len(f.Payload)+FrameOverhead)
			}
			frames++
			got = append(got, f.Payload...)
		}
		if frames != c.frames || !bytes.Equal(got, body) {
			t.Errorf("frame-max %d: %d frames, want %d; same body %v", c.frameMax, frames, c.frames, bytes.Equal(got, body))
		}
	}
	if got := AppendBody(nil, 1, nil, 4096); len(got) != 0 {
		t.Errorf("empty body encoded as %x", got)
	}
}
