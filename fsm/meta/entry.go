package meta

import (
	"encoding/binary"
	"fmt"

	"warren/internal/fields"
)

// An entry of the metadata log:
//
//	u8 0xB6 | u8 version | uvarint decidedTerm | varint nowMs | ops until the end
//	op: u8 opcode | uvarint payload bytes | payload
const (
	entryMagic   = 0xB6
	entryVersion = 1
	// OpsMax is how many operations fit into an entry: a mq.QueueID has 12
	// bits for an operation's number.
	OpsMax = 1 << 12
)

type opcode uint8

// The numbers are in logs on disk: they may be added to, never changed.
const (
	opClusterInit     opcode = 1
	opNodePut         opcode = 2
	opNodeRemove      opcode = 3
	opSessionOpen     opcode = 4
	opSessionEnd      opcode = 5
	opGroupSet        opcode = 6
	opSettingPut      opcode = 7
	opSettingDelete   opcode = 8
	opVHostPut        opcode = 16
	opVHostDelete     opcode = 17
	opUserPut         opcode = 18
	opUserDelete      opcode = 19
	opPermissionSet   opcode = 20
	opPermissionClear opcode = 21
	opUserAdd         opcode = 22
	opUserPassword    opcode = 23
	opUserTags        opcode = 24
	opTopicSet        opcode = 25
	opTopicClear      opcode = 26
	opPolicySet       opcode = 27
	opPolicyClear     opcode = 28
	opTracingSet      opcode = 29
	opExchangeDeclare opcode = 32
	opExchangeDelete  opcode = 33
	opQueueDeclare    opcode = 34
	opQueueDelete     opcode = 35
	opBind            opcode = 36
	opUnbind          opcode = 37
	opDeclareKeeping  opcode = 48
)

func (ClusterInit) code() opcode          { return opClusterInit }
func (NodePut) code() opcode              { return opNodePut }
func (NodeRemove) code() opcode           { return opNodeRemove }
func (SessionOpen) code() opcode          { return opSessionOpen }
func (SessionEnd) code() opcode           { return opSessionEnd }
func (GroupSet) code() opcode             { return opGroupSet }
func (SettingPut) code() opcode           { return opSettingPut }
func (SettingDelete) code() opcode        { return opSettingDelete }
func (VHostPut) code() opcode             { return opVHostPut }
func (VHostDelete) code() opcode          { return opVHostDelete }
func (UserPut) code() opcode              { return opUserPut }
func (UserDelete) code() opcode           { return opUserDelete }
func (PermissionSet) code() opcode        { return opPermissionSet }
func (PermissionClear) code() opcode      { return opPermissionClear }
func (UserAdd) code() opcode              { return opUserAdd }
func (UserPassword) code() opcode         { return opUserPassword }
func (UserTags) code() opcode             { return opUserTags }
func (TopicPermissionSet) code() opcode   { return opTopicSet }
func (TopicPermissionClear) code() opcode { return opTopicClear }
func (PolicySet) code() opcode            { return opPolicySet }
func (PolicyClear) code() opcode          { return opPolicyClear }
func (TracingSet) code() opcode           { return opTracingSet }
func (ExchangeDeclare) code() opcode      { return opExchangeDeclare }
func (ExchangeDelete) code() opcode       { return opExchangeDelete }
func (QueueDeclare) code() opcode         { return opQueueDeclare }
func (QueueDelete) code() opcode          { return opQueueDelete }
func (Bind) code() opcode                 { return opBind }
func (Unbind) code() opcode               { return opUnbind }

func (ExchangeDeclareKeeping) code() opcode { return opDeclareKeeping }

// AppendOps appends operations without an entry's header: what a node sends
// to the leader, who puts its term to it.
func AppendOps(dst []byte, ops ...Op) []byte {
	var payload []byte
	for _, op := range ops {
		payload = op.appendTo(payload[:0])
		dst = append(dst, byte(op.code()))
		dst = fields.AppendUint(dst, uint64(len(payload)))
		dst = append(dst, payload...)
	}
	return dst
}

// ParseOps reads what AppendOps wrote. A leader checks a peer's operations
// with it before it proposes them: what is in the log must be readable.
func ParseOps(b []byte) ([]Op, error) {
	var ops []Op
	for len(b) > 0 {
		if len(ops) == OpsMax {
			return nil, fmt.Errorf("more than %d operations in an entry", OpsMax)
		}
		code := opcode(b[0])
		n, size := binary.Uvarint(b[1:])
		if size <= 0 || n > uint64(len(b)-1-size) {
			return nil, fmt.Errorf("operation %d with code %d is cut short", len(ops), code)
		}
		at := 1 + size
		d := decoder{fields.Read(b[at : at+int(n)])}
		op := d.op(code)
		if op == nil {
			return nil, fmt.Errorf("operation %d has unknown code %d", len(ops), code)
		}
		if d.Done() != nil {
			return nil, fmt.Errorf("operation %d with code %d is malformed", len(ops), code)
		}
		ops = append(ops, op)
		b = b[at+int(n):]
	}
	return ops, nil
}

// AppendEntry appends a log entry. term is the term of the leader that
// decided on the operations and nowMs its clock, which the state machine only
// records. It panics on more than OpsMax operations.
func AppendEntry(dst []byte, term uint64, nowMs int64, ops ...Op) []byte {
	if len(ops) > OpsMax {
		panic(fmt.Sprintf("meta: %d operations in an entry, %d fit", len(ops), OpsMax))
	}
	dst = append(dst, entryMagic, entryVersion)
	dst = fields.AppendUint(dst, term)
	dst = binary.AppendVarint(dst, nowMs)
	return AppendOps(dst, ops...)
}

// parseEntry reads a whole entry before anything of it is applied.
func parseEntry(b []byte) (term uint64, nowMs int64, ops []Op, err error) {
	d := decoder{fields.Read(b)}
	if magic, version := d.Byte(), d.Byte(); magic != entryMagic || version != entryVersion {
		return 0, 0, nil, fmt.Errorf("entry begins with %#x, version %d", magic, version)
	}
	term, nowMs = d.Uint(), d.Int()
	if d.Err() != nil {
		return 0, 0, nil, fmt.Errorf("entry of %d bytes is cut short", len(b))
	}
	ops, err = ParseOps(d.Rest())
	return term, nowMs, ops, err
}

func (d *decoder) op(code opcode) Op {
	switch code {
	case opClusterInit:
		return d.clusterInit()
	case opNodePut:
		return NodePut{ID: d.nodeID(), Name: d.Text(), Addr: d.Text()}
	case opNodeRemove:
		return NodeRemove{ID: d.nodeID()}
	case opSessionOpen:
		return SessionOpen{Node: d.nodeID()}
	case opSessionEnd:
		return SessionEnd{Session: d.sessionID()}
	case opGroupSet:
		return GroupSet(*d.group())
	case opSettingPut:
		return SettingPut(*d.setting())
	case opSettingDelete:
		return SettingDelete{Name: d.Text()}
	case opVHostPut:
		return VHostPut(*d.vhost())
	case opVHostDelete:
		return VHostDelete{Name: d.Text()}
	case opUserPut:
		return UserPut(*d.user())
	case opUserDelete:
		return UserDelete{Name: d.Text()}
	case opPermissionSet:
		return PermissionSet(*d.permission())
	case opPermissionClear:
		return PermissionClear{User: d.Text(), VHost: d.Text()}
	case opUserAdd:
		return UserAdd(*d.user())
	case opUserPassword:
		return UserPassword{Name: d.Text(), PasswordHash: d.Text(), Algorithm: d.Text()}
	case opUserTags:
		return UserTags{Name: d.Text(), Tags: d.strs()}
	case opTopicSet:
		return TopicPermissionSet(*d.topicPermission())
	case opTopicClear:
		return d.topicPermissionClear()
	case opPolicySet:
		return PolicySet{*d.policy()}
	case opPolicyClear:
		return d.policyClear()
	case opTracingSet:
		return d.tracingSet()
	case opExchangeDeclare:
		return d.exchangeDeclare()
	case opDeclareKeeping:
		return d.exchangeDeclareKeeping()
	case opExchangeDelete:
		return d.exchangeDelete()
	case opQueueDeclare:
		return d.queueDeclare()
	case opQueueDelete:
		return QueueDelete{VHost: d.Text(), Name: d.Text(), IfID: d.queueID()}
	case opBind:
		return Bind{*d.binding()}
	case opUnbind:
		return Unbind{*d.binding()}
	}
	return nil
}
