package cluster

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func sampleAppend() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(idA), Addr: []byte(idA)},
		Term:      7, PrevLogEntry: 41, PrevLogTerm: 6, LeaderCommitIndex: 40,
		Entries: []*raft.Log{
			{Index: 42, Term: 7, Type: raft.LogCommand, Data: []byte("one"), AppendedAt: time.Unix(12, 34)},
			{Index: 43, Term: 7, Type: raft.LogNoop},
			{Index: 44, Term: 7, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte("c"), 3000), Extensions: []byte("x")},
		},
	}
}

// flat is an AppendEntries as it lies on the wire.
func flat(a *raft.AppendEntriesRequest) []byte {
	body, data := encodeAppend(a)
	return append(body, bytes.Join(data, nil)...)
}

func TestRaftMessagesComeBackAsTheyWereSent(t *testing.T) {
	h := raft.RPCHeader{ProtocolVersion: 3, ID: []byte(idA), Addr: []byte(idA)}
	check := func(got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	a := sampleAppend()
	gotA, err := decodeAppend(flat(a))
	check(gotA, a, err)
	a.Entries = nil
	gotA, err = decodeAppend(flat(a))
	check(gotA, a, err)
	v := &raft.RequestVoteRequest{RPCHeader: h, Term: 4, LastLogIndex: 9, LastLogTerm: 3, LeadershipTransfer: true}
	gotV, err := decodeVote(encodeVote(v))
	check(gotV, v, err)
	p := &raft.RequestPreVoteRequest{RPCHeader: h, Term: 4, LastLogIndex: 9, LastLogTerm: 3}
	gotP, err := decodePreVote(encodePreVote(p))
	check(gotP, p, err)
	i := &raft.InstallSnapshotRequest{RPCHeader: h, SnapshotVersion: 1, Term: 4, Leader: []byte(idA), LastLogIndex: 9,
		LastLogTerm: 3, Configuration: []byte("conf"), ConfigurationIndex: 2, Size: 1 << 40}
	gotI, _, err := decodeInstall(encodeInstall(i))
	check(gotI, i, err)
	ar := &raft.AppendEntriesResponse{RPCHeader: h, Term: 4, LastLog: 9, Success: true, NoRetryBackoff: true}
	var gotAR raft.AppendEntriesResponse
	check(&gotAR, ar, decodeAppendAnswer(encodeAppendAnswer(ar), &gotAR))
}

func TestEntriesAreDecodedWithAFixedNumberOfAllocations(t *testing.T) {
	a := sampleAppend()
	a.Entries = nil
	for i := range 64 {
		a.Entries = append(a.Entries, &raft.Log{Index: uint64(i), Term: 7, Data: make([]byte, 1000)})
	}
	b := flat(a)
	if n := testing.AllocsPerRun(100, func() { decodeAppend(b) }); n > 3 {
		t.Errorf("%v allocations for 64 entries", n)
	}
}

func TestABodyThatNeverArrivesIsNotAllocated(t *testing.T) {
	head := []byte{0x03, 0xff, 0xff, 0xff, typeAppend}
	head = append(head, make([]byte, rpcHeadBytes-len(head))...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readRPC(bytes.NewReader(append(head, 1, 2, 3)), dataBytesMax)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 4*growStepBytes {
		t.Errorf("allocated %d bytes for a body of 3", n)
	}
	if _, _, err := readRPC(bytes.NewReader(head), controlBytesMax); !errors.Is(err, errFrameTooLong) {
		t.Errorf("got %v, want the limit", err)
	}
}

func FuzzDecodeRaft(f *testing.F) {
	f.Add(flat(sampleAppend()))
	f.Add([]byte{6, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := decodeAppend(b); err == nil {
			again, err := decodeAppend(flat(a))
			if err != nil || !reflect.DeepEqual(a, again) {
				t.Errorf("%+v came back as %+v, %v", a, again, err)
			}
		}
		decodeVote(b)
		decodePreVote(b)
		decodeInstall(b)
		decodeFounding(b)
		if i, files, err := decodeInstall(b); err == nil {
			readable(i)
			decodePull(b, files)
		}
		decodeAppendAnswer(b, new(raft.AppendEntriesResponse))
		decodeVoteAnswer(b, new(raft.RequestVoteResponse))
		decodePreVoteAnswer(b, new(raft.RequestPreVoteResponse))
		decodeInstallAnswer(b, new(raft.InstallSnapshotResponse))
	})
}
