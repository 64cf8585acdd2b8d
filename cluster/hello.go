package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// role says what a connection of the cluster port is for. Each role has its
// own connection, so that a snapshot never delays a vote.
type role uint8

const (
	roleControl role = 1 + iota // votes, heartbeats, timeout-now
	roleData                    // AppendEntries that carry entries
	roleLane                    // the broker's frames
	roleBulk                    // snapshots, one connection each
	roleGossip                  // memberlist's streams, one connection each
	roleCall                    // small requests: join, prepare, commit, the node's own
	roleEnd                     // one past the last
)

func (r role) String() string {
	names := [...]string{"?", "raft-control", "raft-data", "lane", "bulk", "gossip", "call"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("role-%d", uint8(r))
}

// members reports whether only nodes of one formed cluster may use the role.
func (r role) members() bool {
	return r == roleControl || r == roleData || r == roleLane || r == roleBulk
}

const (
	helloVersion = 1
	addrBytesMax = 255
	helloBytes   = 60 // without the address
	answerBytes  = 44
)

const helloMagic = "WRN1"

// Answers to a hello.
const (
	helloOK = iota
	helloBadRole
	helloBadVersion
	helloOtherNode    // the dialled id does not live here
	helloOtherCluster // both belong to clusters, and not to the same
	helloNotFormed    // the role is for members, and one side is none yet
	helloOldTimes     // an incarnation that the survivors cut off, or one to come
	helloSelf         // the node dialled itself
	helloWantsSecret  // sent without TLS by a node that has a secret
	helloHasNoSecret  // sent to a TLS handshake by a node that has none
)

var (
	errNotWarren    = errors.New("not a warren cluster port")
	errWantsSecret  = errors.New("the peer expects a cluster secret and this node has none")
	errHasSecret    = errors.New("the peer uses a cluster secret and this node has none")
	errNoSecret     = errors.New("the peer does not use a cluster secret and this node does")
	errHelloRefused = errors.New("hello refused")
	errSelf         = errors.New("the address is this node's own")
)

// hello opens every connection, inside TLS if there is a secret. By the byte:
// magic[4] version u8, role u8, flags u16, id[16], target[16] (zeros: whoever
// lives there), cluster id[16] (zeros: none yet), incarnation u32 (big-endian),
// then u8 length and the dialler's own advertised address.
type hello struct {
	role        role
	flags       uint16
	id          string
	target      string // empty: any
	clusterID   string // empty: none
	incarnation uint32
	addr        string // where the dialler listens; empty: it does not say
}

func appendID(dst []byte, id string) []byte {
	var b [idBytes]byte
	copy(b[:], id)
	return append(dst, b[:]...)
}

func appendHello(dst []byte, h hello) []byte {
	dst = append(dst, helloMagic...)
	dst = append(dst, helloVersion, byte(h.role))
	dst = binary.BigEndian.AppendUint16(dst, h.flags)
	dst = appendID(dst, h.id)
	dst = appendID(dst, h.target)
	dst = appendID(dst, h.clusterID)
	dst = binary.BigEndian.AppendUint32(dst, h.incarnation)
	if len(h.addr) > addrBytesMax {
		h.addr = ""
	}
	dst = append(dst, byte(len(h.addr)))
	return append(dst, h.addr...)
}

// readHello reads a hello. The version is checked before the rest is read: a
// later version may be longer.
func readHello(r io.Reader) (hello, byte, error) {
	var b [helloBytes + 1]byte
	if _, err := io.ReadFull(r, b[:6]); err != nil {
		return hello{}, 0, fmt.Errorf("read hello: %w", err)
	}
	if string(b[:4]) != helloMagic {
		if b[0] == 0x16 && b[1] == 3 { // a TLS handshake record
			return hello{}, 0, errHasSecret
		}
		return hello{}, 0, fmt.Errorf("%w: first bytes %q", errNotWarren, b[:4])
	}
	if b[4] != helloVersion {
		return hello{}, helloBadVersion, fmt.Errorf("hello version %d, this node speaks %d", b[4], helloVersion)
	}
	h := hello{role: role(b[5])}
	if h.role < roleControl || h.role >= roleEnd {
		return hello{}, helloBadRole, fmt.Errorf("unknown role %d", b[5])
	}
	if _, err := io.ReadFull(r, b[6:]); err != nil {
		return hello{}, 0, fmt.Errorf("read hello: %w", err)
	}
	h.flags = binary.BigEndian.Uint16(b[6:])
	h.id, h.target, h.clusterID = readID(b[8:]), readID(b[24:]), readID(b[40:])
	h.incarnation = binary.BigEndian.Uint32(b[56:])
	addr := make([]byte, b[helloBytes])
	if _, err := io.ReadFull(r, addr); err != nil {
		return hello{}, 0, fmt.Errorf("read hello: %w", err)
	}
	h.addr = string(addr)
	if !validID(h.id) || (h.target != "" && !validID(h.target)) || (h.clusterID != "" && !validID(h.clusterID)) {
		return hello{}, 0, fmt.Errorf("%w: malformed ids in the hello", errNotWarren)
	}
	return h, helloOK, nil
}

func readID(b []byte) string { return strings.TrimRight(string(b[:idBytes]), "\x00") }

// welcome answers a hello: magic[4], version u8, status u8, 2 unused bytes,
// id[16], cluster id[16], incarnation u32.
type welcome struct {
	status      byte
	id          string
	clusterID   string
	incarnation uint32
}

func appendWelcome(dst []byte, w welcome) []byte {
	dst = append(dst, helloMagic...)
	dst = append(dst, helloVersion, w.status, 0, 0)
	dst = appendID(dst, w.id)
	dst = appendID(dst, w.clusterID)
	return binary.BigEndian.AppendUint32(dst, w.incarnation)
}

func readWelcome(r io.Reader) (welcome, error) {
	var b [answerBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return welcome{}, fmt.Errorf("read answer to hello: %w", err)
	}
	if string(b[:4]) != helloMagic {
		return welcome{}, fmt.Errorf("%w: it answered %q", errNotWarren, b[:4])
	}
	w := welcome{status: b[5], id: readID(b[8:]), clusterID: readID(b[24:]), incarnation: binary.BigEndian.Uint32(b[40:])}
	return w, w.err(b[4])
}

// err is what the status means to the dialler.
func (w welcome) err(version byte) error {
	why := ""
	switch w.status {
	case helloOK:
		if validID(w.id) {
			return nil
		}
		why = "malformed id"
	case helloSelf:
		return errSelf
	case helloBadRole:
		why = "the peer does not know the role"
	case helloBadVersion:
		why = fmt.Sprintf("the peer speaks version %d, this node %d", version, helloVersion)
	case helloOtherNode:
		why = "another node lives at the address: " + w.id
	case helloOtherCluster:
		why = "the peer belongs to another cluster: " + w.clusterID
	case helloNotFormed:
		why = "the peer does not know the cluster yet"
	case helloOldTimes:
		why = fmt.Sprintf("the peer is in incarnation %d of the cluster", w.incarnation)
	case helloWantsSecret:
		return errWantsSecret
	default:
		why = fmt.Sprintf("status %d", w.status)
	}
	return fmt.Errorf("%w: %s", errHelloRefused, why)
}
