package raftlog

import (
	"fmt"
	"slices"
)

// Drop forgets all that the log has of a group, damaged or not, and returns the
// group's empty log. It is on disk when it returns. Nobody else may use the
// group's log meanwhile.
//
// It is a record like any other, behind the damage that it makes up for: a
// crash before its sync leaves the damage as it was, and after it recovery
// begins the group here. The files before it are kept from being let go of only
// by what other groups need.
func (w *WAL) Drop(gid uint64) (*GroupLog, error) {
	w.mu.Lock()
	g := w.group(gid)
	w.mu.Unlock()
	if err := w.submit(&request{group: g, do: doDrop, bytes: recordHead}, false); err != nil {
		return nil, fmt.Errorf("drop the log of group %d: %w", gid, err)
	}
	w.keeper.wake()
	return g, nil
}

func (w *WAL) encodeDrop(buf []byte, g *GroupLog) []byte {
	g.begin, g.next = 0, 0
	w.setCut(g, false)
	return appendMark(buf, kindDrop, g.gid, 0, 0, w.file.seed)
}

func (w *WAL) showDrop(g *GroupLog) {
	w.changeTail(g, (*tail).forget)
	w.cache = slices.DeleteFunc(w.cache, func(c cachedEntry) bool { return c.group == g })
	g.mu.Lock()
	g.dropFrom(0)
	g.mu.Unlock()
	g.flaw.Store(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.damaged, g.gid)
	w.anew[g.gid] = true
}

// mourns reports whether damage may concern a group that has not begun anew.
// Until it has, no file goes: the next start must find the damage, too.
func (w *WAL) mourns() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.damaged) > 0 {
		return true
	}
	if w.damage == nil {
		return false
	}
	for _, gid := range w.opts.Known {
		if !w.anew[gid] {
			return true
		}
	}
	for gid := range w.groups {
		if !w.anew[gid] {
			return true
		}
	}
	return len(w.groups) == 0
}
