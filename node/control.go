package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"warren/fsm/meta"
	"warren/management"
	"warren/mq"
)

// ControlSecret is what `warren ctl` shows on this machine.
func (n *Node) ControlSecret() string { return n.secret }

// View is the newest metadata that this node has applied.
func (n *Node) View() *meta.View { return n.broker.View() }

// Administer checks and commits an operator's change.
func (n *Node) Administer(ctx context.Context, op meta.Op) (bool, error) {
	return n.broker.Administer(ctx, op)
}

// Declare makes a queue, an exchange or a binding for an operator.
func (n *Node) Declare(ctx context.Context, operator, vhost string, op mq.Op) error {
	return n.broker.DeclareAs(ctx, operator, vhost, op)
}

// DeleteQueue deletes a queue for an operator.
func (n *Node) DeleteQueue(ctx context.Context, operator string, q *meta.Queue, ifUnused, ifEmpty bool) (uint32, error) {
	return n.broker.DeleteQueueAs(ctx, operator, q, ifUnused, ifEmpty)
}

// PurgeQueue drops what is ready in a queue.
func (n *Node) PurgeQueue(ctx context.Context, q *meta.Queue) (uint32, error) {
	return n.broker.Purge(ctx, q)
}

// SetLogLevel changes the least severe level that is logged, until this node
// ends.
func (n *Node) SetLogLevel(level slog.Level) error {
	if n.cfg.LogLevelVar == nil {
		return errors.New("the level of this node's log cannot be changed")
	}
	n.cfg.LogLevelVar.Set(level)
	return nil
}

// Stop begins the end of this node.
func (n *Node) Stop() { n.end() }

// QueueStatus is a queue with the counts that its leader tells.
func (n *Node) QueueStatus(ctx context.Context, q *meta.Queue) management.Queue {
	return n.queueStatus(ctx, q)
}

// openControl makes a new secret for this run of the node, and leaves it with
// the node's address in the data directory, for its owner to read. The file
// appears whole or not at all.
func (n *Node) openControl(web net.Addr) error {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return err
	}
	n.secret = hex.EncodeToString(secret[:])
	b, err := json.Marshal(management.ControlFile{Node: n.cfg.Name, URL: "http://" + reachable(web), Secret: n.secret})
	if err != nil {
		return err
	}
	path := filepath.Join(n.cfg.DataDir, management.ControlFileName)
	if err := replaceFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("leave the secret for local commands: %w", err)
	}
	return nil
}

// closeControl takes the file away: nobody is there to be shown its secret.
func (n *Node) closeControl() {
	if err := os.Remove(filepath.Join(n.cfg.DataDir, management.ControlFileName)); err != nil {
		n.slog.Warn("the file for local commands is left behind", "err", err)
	}
}

func replaceFile(path string, b []byte) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(next, path)
}

// reachable is an address of a listener as one dials it on this machine.
func reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port))
}
