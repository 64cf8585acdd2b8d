package meta

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"warren/internal/fields"
)

// A snapshot:
//
//	u8 0xB5 | u8 version | uvarint index | varint nowMs | cluster id | uvarint nodesUsed
//	then vhosts, users, permissions, exchanges, queues, bindings, nodes, sessions, groups, settings,
//	and from version 2 on topic permissions, policies, tracing,
//	each as uvarint count and the records in the order of their keys
//
// A snapshot of version 1 was written when there were none of the last three,
// and is read as one that holds none of them: that is the state that it was
// taken of.
const (
	snapshotMagic      = 0xB5
	snapshotVersion    = 2
	snapshotVersionMin = 1
)

// record is what a table of a snapshot holds.
type record interface{ appendTo(dst []byte) []byte }

// AppendTo appends the whole view: a snapshot. Equal logs give equal bytes.
func (v *View) AppendTo(dst []byte) []byte {
	dst = append(dst, snapshotMagic, snapshotVersion)
	dst = fields.AppendUint(dst, v.index)
	dst = binary.AppendVarint(dst, v.nowMs)
	dst = fields.AppendString(dst, v.clusterID)
	dst = fields.AppendUint(dst, uint64(v.nodesUsed))
	dst = appendRecords(dst, v.vhosts)
	dst = appendRecords(dst, v.users)
	dst = appendRecords(dst, v.permissions)
	dst = appendRecords(dst, v.exchanges)
	dst = appendRecords(dst, v.queues, v.keepers)
	dst = appendRecords(dst, v.bindings)
	dst = appendRecords(dst, v.nodes)
	dst = appendRecords(dst, v.sessions)
	dst = appendRecords(dst, v.groups)
	dst = appendRecords(dst, v.settings)
	dst = appendRecords(dst, v.topicPermissions)
	dst = appendRecords(dst, v.policies)
	return appendRecords(dst, v.tracing)
}

// DigestVersion names what Hash takes of a view. Nodes of different versions
// must not be compared.
const DigestVersion = snapshotVersion

// Hash is a checksum of the whole view, to compare nodes with.
func (v *View) Hash() uint64 {
	return crc64.Checksum(v.AppendTo(nil), crc64.MakeTable(crc64.ECMA))
}

// AppendTo appends the whole state; see View.AppendTo.
func (s *State) AppendTo(dst []byte) []byte { return s.View().AppendTo(dst) }

// Hash is a checksum of the whole state.
func (s *State) Hash() uint64 { return s.View().Hash() }

// Restore replaces the state with what AppendTo wrote. After an error the
// state is as it was.
func (s *State) Restore(b []byte) error {
	d := decoder{fields.Read(b)}
	magic, version := d.Byte(), d.Byte()
	if magic != snapshotMagic || version < snapshotVersionMin || version > snapshotVersion {
		return fmt.Errorf("metadata snapshot begins with %#x, version %d", magic, version)
	}
	n := New()
	n.index = d.Uint()
	n.nowMs = d.Int()
	n.clusterID = d.Text()
	n.nodesUsed = uint32(d.Uint())
	restore(&d, (*decoder).vhost, func(v *VHost) { n.vhosts.put([]byte(v.Name), v) })
	restore(&d, (*decoder).user, func(u *User) { n.users.put([]byte(u.Name), u) })
	restore(&d, (*decoder).permission, func(p *Permission) { n.permissions.put(permissionKey(p.User, p.VHost), p) })
	restore(&d, (*decoder).exchange, func(x *Exchange) { n.exchanges.put(nameKey(x.VHost, x.Name), x) })
	restore(&d, (*decoder).queue, n.indexQueue)
	restore(&d, (*decoder).binding, n.indexBinding)
	restore(&d, (*decoder).node, func(x *Node) { n.nodes.put([]byte(x.ID), x) })
	restore(&d, (*decoder).session, func(x *session) {
		n.sessions.put([]byte(x.Node), x)
		n.sessionIDs.put(numberKey(uint64(x.ID)), x)
	})
	restore(&d, (*decoder).group, func(g *Group) { n.groups.put(numberKey(uint64(g.ID)), g) })
	restore(&d, (*decoder).setting, func(x *Setting) { n.settings.put([]byte(x.Name), x) })
	if version >= 2 {
		n.restoreAdministration(&d)
	}
	if d.Done() != nil {
		return fmt.Errorf("metadata snapshot of %d bytes is malformed", len(b))
	}
	*s = *n
	return nil
}

// restoreAdministration reads what version 2 added, and works out again what
// policies come to.
func (s *State) restoreAdministration(d *decoder) {
	restore(d, (*decoder).topicPermission, func(p *TopicPermission) {
		s.topicPermissions.put(topicPermissionKey(p.User, p.VHost, p.Exchange), p)
	})
	governed := map[string]bool{}
	restore(d, (*decoder).policy, func(p *Policy) {
		governed[p.VHost] = true
		s.putPolicy(p)
	})
	restore(d, (*decoder).tracing, func(t *Tracing) { s.tracing.put([]byte(t.VHost), t) })
	for _, v := range s.vhosts.list(nil) {
		if governed[v.Name] {
			s.applyPolicies(v.Name)
		}
	}
	s.changes = nil // whoever restores compares the views
}

// appendRecords appends the records of some tables as one.
func appendRecords[T record](dst []byte, tables ...*iradix.Tree[T]) []byte {
	n := 0
	for _, t := range tables {
		n += t.Len()
	}
	dst = fields.AppendUint(dst, uint64(n))
	for _, t := range tables {
		for r := range each(t.Root(), nil) {
			dst = r.appendTo(dst)
		}
	}
	return dst
}

func restore[T any](d *decoder, read func(*decoder) T, put func(T)) {
	for range d.Count() {
		r := read(d)
		if d.Err() != nil {
			return
		}
		put(r)
	}
}
