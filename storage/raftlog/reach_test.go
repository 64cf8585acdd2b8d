package raftlog

import (
	"math"
	"testing"
)

func TestReachCountsTheDataBetweenTwoEntries(t *testing.T) {
	g := &GroupLog{first: 5}
	for _, size := range []uint32{0, 10, 0, 10, 10, 30} { // 5 to 10
		g.refs = append(g.refs, ref{size: size})
	}
	for _, c := range []struct {
		after, to uint64
		bytes     int64
		want      uint64
	}{
		{4, 10, 1, 6}, // one entry with data is always in reach
		{4, 10, 10, 6},
		{4, 10, 11, 8},
		{4, 10, 21, 9},
		{4, 10, 31, 10},
		{4, 7, 21, 7},
		{6, 10, 15, 9},
		{6, 6, 1, 6},
		{9, 5, 1, 5},   // that is behind
		{0, 10, 11, 8}, // what a snapshot stands for counts nothing
		{9, 90, 31, 90},
		{4, 90, math.MaxInt64, 90}, // nor what is not there yet
	} {
		if got := g.Reach(c.after, c.to, c.bytes); got != c.want {
			t.Errorf("after %d, up to %d, %d bytes: %d, want %d", c.after, c.to, c.bytes, got, c.want)
		}
	}
	if got := new(GroupLog).Reach(3, 9, 1); got != 9 {
		t.Errorf("an empty log: %d", got)
	}
}

func TestNewestCountsTheRoomOfTheNewestEntries(t *testing.T) {
	g := &GroupLog{first: 5}
	for _, size := range []uint32{1, 100, 0, 8, 30} { // 5 to 9
		g.refs = append(g.refs, ref{size: size})
	}
	last := g.refs[4].room()
	for _, c := range []struct {
		bytes int64
		most  int
		want  uint64
	}{
		{0, 9, 0},
		{last - 1, 9, 0},
		{last, 9, 1},
		{last + g.refs[3].room(), 9, 2},
		{math.MaxInt64, 9, 5},
		{math.MaxInt64, 3, 3},
	} {
		if got := g.Newest(c.bytes, c.most); got != c.want {
			t.Errorf("%d bytes, %d at most: %d, want %d", c.bytes, c.most, got, c.want)
		}
	}
}
