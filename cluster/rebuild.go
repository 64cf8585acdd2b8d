package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/raftlog"
	"warren/storage/snapshot"
	"warren/storage/vfs"
)

const (
	// neverStands is Raft's election timeout in a replica that must not stand
	// for election: also one that finds itself the only member of an early
	// configuration, in a log that is just being filled, does not elect itself.
	neverStands = 10 * 365 * 24 * time.Hour
	// refillLook is how often a replica that is being rebuilt looks for a leader.
	refillLook = 200 * time.Millisecond
	// reportMax is how long another node may take to tell of its replica.
	reportMax = time.Second
	// damagedSuffix marks the file of a term and a vote, and in a Bolt of a whole
	// log, that is kept for a human to look at until the replica is whole again.
	damagedSuffix = ".damaged"
)

// errForgotten: the term and the vote cannot be read.
var errForgotten = errors.New("the term and the vote are lost")

// Rebuild notes, durably, that this node's replica of a group is to be rebuilt
// from its peers. The next OpenGroup removes what there is of its log and
// snapshots, and the leader brings it up; no crash on the way ends that.
//
// Why this is safe. The replica may have acknowledged entries that it has no
// more, and others were committed by counting it. Until it has them again it
// does not vote and does not stand, so that every leader is elected by a
// majority of which it is no part; such a majority meets every majority that
// committed something in another replica, which has the entry. It keeps its
// term and its vote. And it is whole again not before it has applied the newest
// entry that a leader had after the rebuild began (Group.refill): all that
// anybody can count it for lies at or below that one. docs/adr has the argument
// in full.
//
// It answers whether the rebuild begins with this: one may have begun before.
func (c *Cluster) Rebuild(gid uint64, why error) (begun bool, err error) {
	dir := c.GroupDir(gid)
	old, err := readRebuildNote(dir)
	if err != nil || old.step == stepForgotten || old.step == stepDrop {
		return false, err
	}
	c.log.Warn("rebuilding this replica from its peers", "group", gid, "err", why)
	return true, rebuildNote{stepDrop, why.Error()}.write(dir)
}

// openOrRebuild opens a group's stores, emptied first if a note says so.
func openOrRebuild(ctx context.Context, seat groupSeat, gid uint64, meta bool, log *slog.Logger) (*groupStores, rebuildNote, error) {
	dir := groupDir(seat.dir, gid)
	note, err := readRebuildNote(dir)
	if err != nil {
		return nil, note, err
	}
	if note.step == stepDrop {
		if err := dropStores(seat, gid, meta, log); errors.Is(err, errForgotten) {
			note = rebuildNote{stepForgotten, note.why + "; " + err.Error()}
			if err := note.write(dir); err != nil {
				return nil, note, err
			}
		} else if err != nil {
			return nil, note, err
		}
	}
	if note.step == stepForgotten {
		if err := recallTerm(ctx, seat, gid, meta, log); err != nil {
			return nil, note, fmt.Errorf("%w, %w, and the other nodes have to say in what terms they are: %w", ErrDamaged, errForgotten, err)
		}
		note.step = stepDrop
		if err := note.write(dir); err != nil {
			return nil, note, err
		}
		if err := dropStores(seat, gid, meta, log); err != nil {
			return nil, note, err
		}
	}
	if note.step == stepDrop {
		note.step = stepRefill
		if err := note.write(dir); err != nil {
			return nil, note, err
		}
	}
	s, err := openStores(seat, gid, meta, log)
	return s, note, damaged(err)
}

// dropStores empties the log and removes the snapshots, of a group that a note
// says is being rebuilt. The term and the vote stay; without them it answers
// errForgotten, and has removed nothing.
func dropStores(seat groupSeat, gid uint64, meta bool, log *slog.Logger) error {
	dir := groupDir(seat.dir, gid)
	o := raftlog.Options{Log: log, Fatal: seat.fatal, CacheBytes: -1}
	open, file := raftlog.EmptyBolt, logFile
	if !meta && seat.wal != nil {
		open, file = raftlog.OpenBolt, stableFile
	}
	b, err := open(filepath.Join(dir, file), o)
	if errors.Is(err, raftlog.ErrDamaged) {
		return fmt.Errorf("%w: %w", errForgotten, err)
	}
	if err != nil {
		return err
	}
	_, err = b.GetUint64([]byte("CurrentTerm"))
	if err := b.Close(); err != nil {
		return err
	}
	if err != nil { // whoever has acknowledged anything has a term
		return fmt.Errorf("%w: %w", errForgotten, err)
	}
	if !meta && seat.wal != nil {
		if _, err := seat.wal.Drop(gid); err != nil {
			return err
		}
	}
	return snapshot.Clear(vfs.OS{}, filepath.Join(dir, snapshotsDir))
}

// recallTerm makes up for a term and a vote that are lost. Whoever this replica
// voted for, or heard of a term from, was in that term; so the newest term of
// all others is at least as new as any that it promised something in. In that
// one it has voted, for itself: it will vote for nobody in it. Asking a majority
// would not do: the one it voted for may be the one that was not asked.
func recallTerm(ctx context.Context, seat groupSeat, gid uint64, meta bool, log *slog.Logger) error {
	term, err := seat.terms(ctx, gid)
	if err != nil {
		return err
	}
	if term == 0 {
		return errors.New("none of the others knows a term of this group")
	}
	path := filepath.Join(groupDir(seat.dir, gid), stableFile)
	if meta || seat.wal == nil {
		path = filepath.Join(groupDir(seat.dir, gid), logFile)
	}
	fs := vfs.OS{}
	if exists(path) {
		if err := fs.Rename(path, path+damagedSuffix); err != nil {
			return err
		}
	}
	b, err := raftlog.OpenBolt(path, raftlog.Options{Log: log, Fatal: seat.fatal, CacheBytes: -1})
	if err != nil {
		return err
	}
	err = errors.Join(
		b.SetUint64([]byte("LastVoteTerm"), term), b.Set([]byte("LastVoteCand"), []byte(seat.id)),
		b.SetUint64([]byte("CurrentTerm"), term), // last: this says that all is there
		b.Close())
	if err == nil {
		err = fs.SyncDir(filepath.Dir(path))
	}
	return err
}

// refill waits until this replica has again all that it can be counted for, and
// then gives it back its say.
//
// That is so when it has applied up to the newest entry of a leader, asked
// after the old log was gone, of a term no older than its own. Entries that
// were committed by counting it in an earlier term are in that leader's log,
// because its electors met their majority in somebody else. Entries of the
// leader's own term that it acknowledged before are there, since the leader had
// them before it sent them: that leader still counts it for them, and rightly
// from here on. The commit index alone would not do: a leader that counts it
// for an entry may commit that one a moment later.
func (g *Group) refill(ctx context.Context) {
	for {
		last, term, err := g.leaderLast(ctx)
		if err == nil {
			err = g.waitRefilled(ctx, last, term)
		}
		if err == nil {
			g.refilled(last)
			return
		}
		if !rest(ctx, refillLook) {
			return
		}
	}
}

// waitRefilled waits for the entry at last, which the leader of term had. It may
// have gone with that leader, and never come: the next one is asked anew.
func (g *Group) waitRefilled(ctx context.Context, last, term uint64) error {
	for {
		look, cancel := context.WithTimeout(ctx, refillLook)
		err := g.WaitApplied(look, last)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || g.Term() > term {
			return err
		}
	}
}

// leaderLast asks the group's leader for its newest entry, and its term.
func (g *Group) leaderLast(ctx context.Context) (last, term uint64, err error) {
	leader, term, ok := g.Leader()
	if !ok {
		return 0, 0, raft.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(ctx, reportMax)
	defer cancel()
	r, err := g.seat.report(ctx, leader, g.gid)
	if err != nil {
		return 0, 0, err
	}
	if !r.leads || r.term < term {
		return 0, 0, raft.ErrNotLeader
	}
	return r.last, r.term, nil
}

// refilled ends the rebuild. A crash before the note is gone only has the
// replica abstain once more.
func (g *Group) refilled(last uint64) {
	if !g.standing.now.CompareAndSwap(standRefilling, standWhole) {
		return // it was damaged again
	}
	dir := groupDir(g.seat.dir, g.gid)
	for _, name := range []string{logFile, stableFile} {
		if err := (vfs.OS{}).Remove(filepath.Join(dir, name+damagedSuffix)); err != nil {
			g.log.Warn("a damaged file stays", "err", err)
		}
	}
	if err := removeRebuildNote(dir); err != nil {
		g.seat.fatal(fmt.Errorf("end the rebuild of group %d: %w", g.gid, err))
		return
	}
	g.rebuilt.Store(true)
	g.log.Info("this replica is rebuilt", "index", last)
	if r := g.raft.Load(); r != nil {
		g.stand(r)
	}
}

// stand gives a run of Raft that began in a rebuild its timeouts back.
func (g *Group) stand(r *groupRaft) {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	c := r.ReloadableConfig()
	if c.HeartbeatTimeout != neverStands || g.Rebuilding() {
		return
	}
	c.HeartbeatTimeout, c.ElectionTimeout = g.seat.profile.heartbeat, g.seat.profile.heartbeat
	if err := r.ReloadConfig(c); err != nil {
		g.log.Error("set raft's timeouts", "err", err)
	}
}
