package cluster

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"warren/internal/fields"
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

// decoder reads the fields of a message.
type decoder struct{ fields.Reader }

// done is the error of the whole message; bytes left over are one.
func (d *decoder) done() error {
	if d.Done() != nil {
		return errCodec
	}
	return nil
}

func appendRPCHeader(dst []byte, h raft.RPCHeader) []byte {
	dst = binary.AppendVarint(dst, int64(h.ProtocolVersion))
	dst = fields.AppendBytes(dst, h.ID)
	return fields.AppendBytes(dst, h.Addr)
}

func (d *decoder) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(d.Int()), ID: d.Bytes(), Addr: d.Bytes()}
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
		body = fields.AppendBytes(body, e.Extensions)
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
	d := decoder{fields.Read(b)}
	a := &raft.AppendEntriesRequest{
		RPCHeader: d.rpcHeader(), // who leads is in it; the field of its own is for protocol versions before 3
		Term:      d.Uint(),
	}
	a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex = d.Uint(), d.Uint(), d.Uint()
	n := d.Uint()
	if n > min(entriesMax, uint64(len(d.Rest())/entryBytesMin)) {
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
		l.Index, l.Term, l.Type = d.Uint(), d.Uint(), raft.LogType(d.Byte())
		l.bytes = d.Uint()
		l.Extensions = d.Bytes()
		if at := d.Int(); at != 0 {
			l.AppendedAt = time.Unix(0, at)
		}
		a.Entries[i] = &l.Log
	}
	for i := range logs {
		logs[i].Data = d.Take(logs[i].bytes)
	}
	return a, d.done()
}

func encodeAppendAnswer(r *raft.AppendEntriesResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	dst = binary.AppendUvarint(dst, r.LastLog)
	dst = fields.AppendBool(dst, r.Success)
	return fields.AppendBool(dst, r.NoRetryBackoff)
}

func decodeAppendAnswer(b []byte, r *raft.AppendEntriesResponse) error {
	d := decoder{fields.Read(b)}
	*r = raft.AppendEntriesResponse{RPCHeader: d.rpcHeader(), Term: d.Uint(), LastLog: d.Uint(), Success: d.Bool(), NoRetryBackoff: d.Bool()}
	return d.done()
}

func encodeVote(v *raft.RequestVoteRequest) []byte {
	dst := appendRPCHeader(make([]byte, 0, 96), v.RPCHeader)
	dst = binary.AppendUvarint(dst, v.Term)
	dst = binary.AppendUvarint(dst, v.LastLogIndex)
	dst = binary.AppendUvarint(dst, v.LastLogTerm)
	return fields.AppendBool(dst, v.LeadershipTransfer)
}

func decodeVote(b []byte) (*raft.RequestVoteRequest, error) {
	d := decoder{fields.Read(b)}
	v := &raft.RequestVoteRequest{RPCHeader: d.rpcHeader(), Term: d.Uint(),
		LastLogIndex: d.Uint(), LastLogTerm: d.Uint(), LeadershipTransfer: d.Bool()}
	return v, d.done()
}

func encodeVoteAnswer(r *raft.RequestVoteResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	dst = fields.AppendBytes(dst, r.Peers)
	return fields.AppendBool(dst, r.Granted)
}

func decodeVoteAnswer(b []byte, r *raft.RequestVoteResponse) error {
	d := decoder{fields.Read(b)}
	*r = raft.RequestVoteResponse{RPCHeader: d.rpcHeader(), Term: d.Uint(), Peers: d.Bytes(), Granted: d.Bool()}
	return d.done()
}

func encodePreVote(v *raft.RequestPreVoteRequest) []byte {
	dst := appendRPCHeader(make([]byte, 0, 96), v.RPCHeader)
	dst = binary.AppendUvarint(dst, v.Term)
	dst = binary.AppendUvarint(dst, v.LastLogIndex)
	return binary.AppendUvarint(dst, v.LastLogTerm)
}

func decodePreVote(b []byte) (*raft.RequestPreVoteRequest, error) {
	d := decoder{fields.Read(b)}
	v := &raft.RequestPreVoteRequest{RPCHeader: d.rpcHeader(), Term: d.Uint(), LastLogIndex: d.Uint(), LastLogTerm: d.Uint()}
	return v, d.done()
}

func encodePreVoteAnswer(r *raft.RequestPreVoteResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	return fields.AppendBool(dst, r.Granted)
}

func decodePreVoteAnswer(b []byte, r *raft.RequestPreVoteResponse) error {
	d := decoder{fields.Read(b)}
	*r = raft.RequestPreVoteResponse{RPCHeader: d.rpcHeader(), Term: d.Uint(), Granted: d.Bool()}
	return d.done()
}

func encodeInstall(i *raft.InstallSnapshotRequest) []byte {
	dst := appendRPCHeader(make([]byte, 0, 256), i.RPCHeader)
	dst = binary.AppendVarint(dst, int64(i.SnapshotVersion))
	dst = binary.AppendUvarint(dst, i.Term)
	dst = fields.AppendBytes(dst, i.Leader)
	dst = binary.AppendUvarint(dst, i.LastLogIndex)
	dst = binary.AppendUvarint(dst, i.LastLogTerm)
	dst = fields.AppendBytes(dst, i.Peers)
	dst = fields.AppendBytes(dst, i.Configuration)
	dst = binary.AppendUvarint(dst, i.ConfigurationIndex)
	return binary.AppendVarint(dst, i.Size)
}

// decodeInstall decodes a request, and the list of files that follows it if
// there are any.
func decodeInstall(b []byte) (*raft.InstallSnapshotRequest, []snapshot.File, error) {
	d := decoder{fields.Read(b)}
	i := &raft.InstallSnapshotRequest{RPCHeader: d.rpcHeader(), SnapshotVersion: raft.SnapshotVersion(d.Int()),
		Term: d.Uint(), Leader: d.Bytes(), LastLogIndex: d.Uint(), LastLogTerm: d.Uint(), Peers: d.Bytes(),
		Configuration: d.Bytes(), ConfigurationIndex: d.Uint(), Size: d.Int()}
	var files []snapshot.File
	if d.More() {
		files = d.files()
	}
	return i, files, d.done()
}

func encodeInstallAnswer(r *raft.InstallSnapshotResponse) []byte {
	dst := appendRPCHeader(make([]byte, 0, 64), r.RPCHeader)
	dst = binary.AppendUvarint(dst, r.Term)
	return fields.AppendBool(dst, r.Success)
}

func decodeInstallAnswer(b []byte, r *raft.InstallSnapshotResponse) error {
	d := decoder{fields.Read(b)}
	*r = raft.InstallSnapshotResponse{RPCHeader: d.rpcHeader(), Term: d.Uint(), Success: d.Bool()}
	return d.done()
}
