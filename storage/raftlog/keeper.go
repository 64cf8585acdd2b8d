package raftlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	walSuffix   = ".wal"
	newSuffix   = ".new"   // being made
	spareSuffix = ".spare" // no group needs it; to be used again

	// sparesMax is how many files wait to be used again. Their blocks are written
	// already: a sync of one of them writes no metadata at all.
	sparesMax = 4
	// carryBytesMax of live entries are copied forward so that the oldest file
	// can go, carryChunkBytes at a time.
	carryBytesMax   = 4 << 20
	carryChunkBytes = 1 << 20
	// A group may keep pinFilesEach files, and all together pinFiles more, before
	// the groups in the oldest one are asked for a snapshot. At twice as many
	// files what is left in the oldest one is carried, however much it is.
	pinFiles     = 16
	pinFilesEach = 8
	// wantRoomEvery is how often a full disk has the groups in the oldest file
	// asked for a snapshot.
	wantRoomEvery = 10 * time.Second
)

// keeper makes files before they are needed and lets go of those that no group
// needs any more. Both may take long, and neither stands in a write's way.
type keeper struct {
	w       *WAL
	made    chan madeFile // without a buffer: one file is ready, and no more
	spares  chan *walFile
	woken   chan struct{} // cap 1
	full    atomic.Bool   // the disk was, and nobody has been asked for a snapshot yet
	asked   time.Time     // owned by clean: when somebody was, for that reason
	begun   atomic.Uint64 // files that were handed out to be written to
	seen    uint64        // owned by clean: begun when it last looked
	sweep   int           // owned by clean: files that may go yet because the log rests
	stop    chan struct{}
	work    sync.WaitGroup
	nextSeq uint64 // owned by who makes files: open, then the goroutine prepare
}

type madeFile struct {
	file *walFile
	err  error
}

func (k *keeper) init(w *WAL, nextSeq uint64) {
	*k = keeper{
		w: w, nextSeq: nextSeq, made: make(chan madeFile), spares: make(chan *walFile, sparesMax),
		woken: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

func (k *keeper) start() {
	k.work.Go(k.prepare)
	k.work.Go(k.clean)
	k.wake()
}

// end is called when nothing will be written any more.
func (k *keeper) end() {
	close(k.stop)
	k.work.Wait()
}

func (k *keeper) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// wantRoom says that the disk is full.
func (k *keeper) wantRoom() {
	k.full.Store(true)
	k.wake()
}

// next is a file with at least room bytes. Only one goroutine makes files, so
// they are used in the order of their numbers.
func (k *keeper) next(room int64) (*walFile, error) {
	m := <-k.made
	if m.err != nil {
		m = <-k.made // that try may have been long ago
	}
	if m.err != nil {
		return nil, m.err
	}
	k.begun.Add(1)
	if m.file.size >= room {
		return m.file, nil
	}
	if err := m.file.f.Allocate(room); err != nil {
		k.discard(m.file)
		return nil, err
	}
	m.file.size = room
	return m.file, nil
}

func (k *keeper) prepare() {
	for {
		f, err := k.makeFile()
		select {
		case k.made <- madeFile{f, err}:
		case <-k.stop:
			if err == nil {
				k.discard(f)
			}
			return
		}
	}
}

// discard closes and removes a file that was never used. What is left of it
// after a crash, recovery removes.
func (k *keeper) discard(f *walFile) {
	if err := errors.Join(f.f.Close(), k.w.fs.Remove(f.path)); err != nil {
		k.w.opts.Log.Warn("remove an unused file of the log", "file", f.path, "err", err)
	}
}

// makeFile makes the next file. It has its name when its header is on disk,
// and is durable with its name before anything is written to it.
func (k *keeper) makeFile() (*walFile, error) {
	seq := k.nextSeq
	path := filepath.Join(k.w.dir, fmt.Sprintf("%016x%s", seq, walSuffix))
	f, tmp, err := k.blank(path)
	if err != nil {
		return nil, err
	}
	var random [8]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	header := appendFileHeader(nil, seq, binary.LittleEndian.Uint64(random[:]), time.Now())
	_, f.seed, _ = readFileHeader(header)
	f.seq, f.path = seq, path
	_, err = f.f.WriteAt(header, 0)
	if err == nil {
		err = f.f.Sync() // the size and the blocks, too
	}
	if err == nil {
		err = k.w.fs.Rename(tmp, path)
	}
	if err == nil {
		err = k.w.fs.SyncDir(k.w.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.f.Close(), k.w.fs.Remove(tmp), k.w.fs.Remove(path))
	}
	k.nextSeq++
	return f, nil
}

// blank is a file to be made into the one at path: a spare one, or a new one.
func (k *keeper) blank(path string) (f *walFile, tmp string, err error) {
	select {
	case f := <-k.spares:
		k.w.recycled.Add(1)
		return &walFile{f: f.f, size: f.size}, f.path, nil
	default:
	}
	tmp = path + newSuffix
	file, err := k.w.fs.Create(tmp)
	if err != nil {
		return nil, "", err
	}
	if err := file.Allocate(k.w.opts.FileBytes); err != nil {
		return nil, "", errors.Join(err, file.Close(), k.w.fs.Remove(tmp))
	}
	return &walFile{f: file, size: k.w.opts.FileBytes}, tmp, nil
}

func (k *keeper) clean() {
	look := time.NewTicker(idleEvery)
	defer look.Stop()
	for {
		select {
		case <-k.woken:
			k.cleanAll()
		case <-look.C:
			if k.rests() {
				k.rest()
			}
		case <-k.stop:
			return
		}
	}
}

func (k *keeper) cleanAll() {
	for more, err := true, error(nil); more; {
		if more, err = k.cleanOldest(); err != nil {
			k.w.opts.Log.Error("let go of an old file of the log", "err", err)
			return
		}
		select {
		case <-k.stop:
			return
		default:
		}
	}
}

// cleanOldest does one step to let go of the oldest file, and reports whether
// another one may be possible. Files go in order: what a later one says of
// entries in an earlier one must outlive it.
func (k *keeper) cleanOldest() (more bool, err error) {
	w := k.w
	if w.mourns() {
		return false, nil
	}
	w.mu.Lock()
	files, groups, oldest := len(w.files), len(w.groups), w.files[0]
	// The next one must tell recovery that there was a log, and where it goes on:
	// one that was begun and not written to yet would be taken for no file at all,
	// and goes if its first write is refused.
	lasts := files > 1 && w.files[1].begun.Load()
	w.mu.Unlock()
	if !lasts {
		return false, nil
	}
	allowed := pinFiles + pinFilesEach*groups
	switch live := oldest.live.Load(); {
	case live == 0:
		return true, k.retire(oldest)
	case live <= min(carryBytesMax, w.opts.FileBytes/16) || files > 2*allowed || k.sweep > 0 && k.sparse():
		return k.carry(oldest)
	case files > allowed || k.roomIsDue():
		k.pin(oldest)
	}
	return false, nil
}

// roomIsDue reports whether the disk is full and snapshots are to be asked for.
func (k *keeper) roomIsDue() bool {
	if time.Since(k.asked) < wantRoomEvery || !k.full.Swap(false) {
		return false
	}
	k.asked = time.Now()
	return true
}

// retire takes a file that holds nothing live out of the log. Its name is gone
// for good before the next file may go: a file that is missing between two
// others means damage.
func (k *keeper) retire(f *walFile) error {
	w := k.w
	spare := f.path + spareSuffix
	if len(k.spares) == cap(k.spares) || f.size != w.opts.FileBytes {
		spare = ""
		if err := w.fs.Remove(f.path); err != nil {
			return err
		}
	} else if err := w.fs.Rename(f.path, spare); errors.Is(err, fs.ErrNotExist) {
		// An earlier try was done, and answered an error all the same. The file
		// has the other name then, or none; it is not waited for under either.
		if err := w.fs.Remove(spare); err != nil {
			return err
		}
		spare = ""
	} else if err != nil {
		return err
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		w.opts.Fatal(fmt.Errorf("%s: %w", w.dir, err))
		return err
	}
	w.mu.Lock()
	w.files = slices.Delete(w.files, 0, 1)
	w.mu.Unlock()
	k.sweep--
	if spare == "" {
		return f.f.Close()
	}
	// Nobody will read what it holds, and what is written to pages that are still
	// in memory costs more: Linux takes each piece of memory that a write touches,
	// however large, for written anew as a whole.
	if err := f.f.DropCache(); err != nil {
		w.opts.Log.Warn("let go of the memory of an old file of the log", "file", spare, "err", err)
	}
	// Readers that hold the old file see other bytes under another checksum, and look again.
	k.spares <- &walFile{f: f.f, path: spare, size: f.size} // has room: nobody else fills it
	return nil
}

// carriage is an entry on its way to a newer file.
type carriage struct {
	at  ref // where it was found
	log raft.Log
}

// carry copies some of a file's live entries to where the log is written.
func (k *keeper) carry(f *walFile) (more bool, err error) {
	for _, g := range k.w.allGroups() {
		list, bytes, err := g.pick(f)
		if errors.Is(err, ErrDamaged) { // Raft may have no use for that entry, and never find out
			g.flaw.Store(&err)
			g.pin()
		}
		if err != nil {
			return false, fmt.Errorf("carry entries of group %d: %w", g.gid, err)
		}
		if len(list) == 0 {
			continue
		}
		if err := k.w.submit(&request{group: g, do: doCarry, carry: list, bytes: bytes}, false); err != nil {
			if errors.Is(err, ErrClosed) {
				err = nil
			}
			return false, err
		}
		k.w.carried.Add(uint64(len(list)))
		return true, nil
	}
	return true, nil // they have gone meanwhile
}

// pick reads the group's first entries in f.
func (g *GroupLog) pick(f *walFile) (list []carriage, bytes int, err error) {
	g.mu.RLock()
	for i, r := range g.refs {
		if r.file == f && (bytes == 0 || bytes+int(r.room()) <= carryChunkBytes) {
			list = append(list, carriage{at: r, log: raft.Log{Index: g.first + uint64(i)}})
			bytes += int(r.room())
		}
	}
	g.mu.RUnlock()
	for i := range list {
		c := &list[i]
		err := c.at.read(g.gid, c.log.Index, &c.log)
		if now, ok := g.find(c.log.Index); err != nil && ok && now == c.at {
			return nil, 0, err
		} else if err != nil {
			return list[:i], bytes, nil // it has gone meanwhile
		}
	}
	return list, bytes, nil
}

// encodeCarry writes what is still where it was found. No other request is in
// the batch: all that was written before is in effect.
func (w *WAL) encodeCarry(buf []byte, r *request) []byte {
	r.carry = slices.DeleteFunc(r.carry, func(c carriage) bool {
		now, ok := r.group.find(c.log.Index)
		return !ok || now != c.at
	})
	for i := range r.carry {
		l := &r.carry[i].log
		w.place(len(buf), l)
		buf = appendEntry(buf, kindCarry, r.group.gid, l, w.file.seed)
	}
	return buf
}

func (w *WAL) showCarried(g *GroupLog, list []carriage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, c := range list {
		at := &g.refs[c.log.Index-g.first]
		g.release(*at)
		*at = w.placed[i]
		g.hold(*at)
	}
}

// pin asks the groups whose entries are in f for a snapshot.
func (k *keeper) pin(f *walFile) {
	for _, g := range k.w.allGroups() {
		g.mu.RLock()
		holds := slices.ContainsFunc(g.refs, func(r ref) bool { return r.file == f })
		g.mu.RUnlock()
		if holds {
			g.pin()
		}
	}
}

func (g *GroupLog) pin() {
	select {
	case g.pinned <- struct{}{}:
	default:
	}
}
