package cluster

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/snapshot"
)

// errCodec is the only thing that a malformed Raft message causes: its sender
// gets it as an answer.
var errCodec = errors.New("malformed raft message")

// entryBytesMin is the least that an encoded log entry takes: what bounds the
// number of entries that a message can announce.
const entryBytesMin = 6

// entriesMax bounds the entries of one message: Raft sends 64 at most.
const entriesMax = 4096

// decoder reads the fields of a message; after the first fault all further
// reads give zero values.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes reads length-prefixed bytes, which lie in the message: not copied.
// Empty ones are nil.
func (d *decoder) bytes() []byte { return d.take(d.uint()) }

func (d *decoder) take(n uint64) []byte {
	if n == 0 || d.bad {
		return nil
	}
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

// done is the error of the whole message; bytes left over are one.
func (d *decoder) done() error {
	if d.bad || len(d.b) != 0 {
		return errCodec
	}
	return nil
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func (d *decoder) bool() bool { return d.byte() != 0 }

func appendRPCHeader(dst []byte, h raft.RPCHeader) []byte {
	dst = binary.AppendVarint(dst, int64(h.ProtocolVersion))
	dst = appendBytes(dst, h.ID)
	return appendBytes(dst, h.Addr)
}

func (d *decoder) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(d.int()), ID: d.bytes(), Addr: d.bytes()}
}

// encodeAppend encodes an AppendEntries in two parts: the fields of the request
// and of its entries, and then the entries' data one after the other, which
// stays where it is.
func encodeAppend(a *raft.AppendEntriesRequest) (body []byte, data [][]byte) {
	body = make([]byte, 0, 128+40*len(a.Entries))
	body = appendRPCHeader(body, a.RPCHeader)
	body = binary.AppendUvarint(body, a.Term)
	body = binary.AppendUvarint(body, a.PrevLogEntry)
	body = binary.AppendUvarint(body, a.PrevLogTerm)
	body = binary.AppendUvarint(body, a.LeaderCommitIndex)
	body = binary.AppendUvarint(body, uint64(len(a.Entries)))
	if len(a.Entries) > 0 {
		data = make([][]byte, 0, len(a.Entries))
	}
	for _, e := range a.Entries {
		body = binary.AppendUvarint(body, e.Index)
		body = binary.AppendUvarint(body, e.Term)
		body = append(body, byte(e.Type))
		body = binary.AppendUvarint(body, uint64(len(e.Data)))
		body = appendBytes(body, e.Extensions)
		at := int64(0)
		if !e.AppendedAt.IsZero() {
			at = e.AppendedAt.UnixNano()
		}
		body = binary.AppendVarint(body, at)
		if len(e.Data) > 0 {
			data = append(data, e.Data)
		}
	}
	return body, data
}

// decodeAppend decodes an AppendEntries. The entries share one allocation, and
// their data lies in b.
func decodeAppend(b []byte) (*raft.AppendEntriesRequest, error) {
	d := decoder{b: b}
	a := &raft.AppendEntriesRequest{
		RPCHeader: d.rpcHeader(), // who leads is in it; the field of its own is for protocol versions before 3
		Term:      d.uint(),
	}
	a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex = d.uint(), d.uint(), d.uint()
	n := d.uint()
	if n > min(entriesMax, uint64(len(d.b)/entryBytesMin)) {
		return nil, errCodec
	}
	if n == 0 {
		return a, d.done()
	}
	logs := make([]struct {
		raft.Log
		bytes uint64
	}, n)
	a.Entries = make([]*raft.Log, n)
	for i := range logs {
		l := &logs[i]
		l.Index, l.Term, l.Type = d.uint(), d.uint(), raft.LogType(d.byte())
		l.bytes = d.uint()
		l.Extensions = d.bytes()
		if at := d.int(); at != 0 {
			l.AppendedAt = time.Unix(0, at)
		}
		a.Entries[i] = &l.Log
	}
	for i := range logs {
		logs[i].Data = d.take(logs[i].bytes)
	}
	return a, d.done()
}

func encodeAppendAnswer(r *raft.AppendEntriesResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	dst = binary.AppendUvarint(dst, r.LastLog)
	dst = appendBool(dst, r.Success)
	return appendBool(dst, r.NoRetryBackoff)
}

func decodeAppendAnswer(b []byte, r *raft.AppendEntriesResponse) error {
	d := decoder{b: b}
	*r = raft.AppendEntriesResponse{RPCHeader: d.rpcHeader(), Term: d.uint(), LastLog: d.uint(), Success: d.bool(), NoRetryBackoff: d.bool()}
	return d.done()
}

func encodeVote(v *raft.RequestVoteRequest) []byte {
	dst := appendRPCHeader(make([]byte, 0, 96), v.RPCHeader)
	dst = binary.AppendUvarint(dst, v.Term)
	dst = binary.AppendUvarint(dst, v.LastLogIndex)
	dst = binary.AppendUvarint(dst, v.LastLogTerm)
	return appendBool(dst, v.LeadershipTransfer)
}

func decodeVote(b []byte) (*raft.RequestVoteRequest, error) {
	d := decoder{b: b}
	v := &raft.RequestVoteRequest{RPCHeader: d.rpcHeader(), Term: d.uint(),
		LastLogIndex: d.uint(), LastLogTerm: d.uint(), LeadershipTransfer: d.bool()}
	return v, d.done()
}

func encodeVoteAnswer(r *raft.RequestVoteResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	dst = appendBytes(dst, r.Peers)
	return appendBool(dst, r.Granted)
}

func decodeVoteAnswer(b []byte, r *raft.RequestVoteResponse) error {
	d := decoder{b: b}
	*r = raft.RequestVoteResponse{RPCHeader: d.rpcHeader(), Term: d.uint(), Peers: d.bytes(), Granted: d.bool()}
	return d.done()
}

func encodePreVote(v *raft.RequestPreVoteRequest) []byte {
	dst := appendRPCHeader(make([]byte, 0, 96), v.RPCHeader)
	dst = binary.AppendUvarint(dst, v.Term)
	dst = binary.AppendUvarint(dst, v.LastLogIndex)
	return binary.AppendUvarint(dst, v.LastLogTerm)
}

func decodePreVote(b []byte) (*raft.RequestPreVoteRequest, error) {
	d := decoder{b: b}
	v := &raft.RequestPreVoteRequest{RPCHeader: d.rpcHeader(), Term: d.uint(), LastLogIndex: d.uint(), LastLogTerm: d.uint()}
	return v, d.done()
}

func encodePreVoteAnswer(r *raft.RequestPreVoteResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	return appendBool(dst, r.Granted)
}

func decodePreVoteAnswer(b []byte, r *raft.RequestPreVoteResponse) error {
	d := decoder{b: b}
	*r = raft.RequestPreVoteResponse{RPCHeader: d.rpcHeader(), Term: d.uint(), Granted: d.bool()}
	return d.done()
}

func encodeInstall(i *raft.InstallSnapshotRequest) []byte {
	dst := appendRPCHeader(make([]byte, 0, 256), i.RPCHeader)
	dst = binary.AppendVarint(dst, int64(i.SnapshotVersion))
	dst = binary.AppendUvarint(dst, i.Term)
	dst = appendBytes(dst, i.Leader)
	dst = binary.AppendUvarint(dst, i.LastLogIndex)
	dst = binary.AppendUvarint(dst, i.LastLogTerm)
	dst = appendBytes(dst, i.Peers)
	dst = appendBytes(dst, i.Configuration)
	dst = binary.AppendUvarint(dst, i.ConfigurationIndex)
	return binary.AppendVarint(dst, i.Size)
}

// decodeInstall decodes a request, and the list of files that follows it if
// there are any.
func decodeInstall(b []byte) (*raft.InstallSnapshotRequest, []snapshot.File, error) {
	d := decoder{b: b}
	i := &raft.InstallSnapshotRequest{RPCHeader: d.rpcHeader(), SnapshotVersion: raft.SnapshotVersion(d.int()),
		Term: d.uint(), Leader: d.bytes(), LastLogIndex: d.uint(), LastLogTerm: d.uint(), Peers: d.bytes(),
		Configuration: d.bytes(), ConfigurationIndex: d.uint(), Size: d.int()}
	var files []snapshot.File
	if len(d.b) > 0 {
		files = d.files()
	}
	return i, files, d.done()
}

func encodeInstallAnswer(r *raft.InstallSnapshotResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	return appendBool(dst, r.Success)
}

func decodeInstallAnswer(b []byte, r *raft.InstallSnapshotResponse) error {
	d := decoder{b: b}
	*r = raft.InstallSnapshotResponse{RPCHeader: d.rpcHeader(), Term: d.uint(), Success: d.bool()}
	return d.done()
}
