package node

import (
	"strings"
	"testing"

	"warren/cluster"
)

// servers reads "a b-": b is a member that does not vote.
func servers(s string) (out []cluster.Server) {
	for _, id := range strings.Fields(s) {
		out = append(out, cluster.Server{ID: strings.TrimSuffix(id, "-"), Voter: !strings.HasSuffix(id, "-")})
	}
	return out
}

func TestMembersChangeStepByStep(t *testing.T) {
	for _, tt := range []struct {
		name, has, want, caughtUp string
		votersMax                 int
		grows                     bool
		next                      change
	}{
		{"all is as it should be", "a b c", "a b c", "", 3, false, change{}},
		{"who is missing is added first", "a", "a b", "", 3, false, change{changeAdd, "b"}},
		{"and votes when it has caught up", "a b-", "a b", "b", 3, false, change{changePromote, "b"}},
		{"but not before", "a b-", "a b", "", 3, false, change{}},
		{"one that is behind keeps no other back", "a b- c-", "a b c", "c", 3, false, change{changePromote, "c"}},
		{"nobody goes before the new one votes", "a b c d-", "a b d", "", 3, false, change{}},
		{"then it goes", "a b c d", "a b d", "", 3, false, change{changeRemove, "c"}},
		{"the leader hands over before it goes", "a b c", "b c", "", 3, false, change{changeLeave, "b"}},
		{"after the others", "a b c d", "c d", "", 3, false, change{changeLeave, "c"}},
		{"no wish is no order to empty the group", "a b c", "", "", 3, false, change{}},
		{"no more than so many vote", "a b c d e f-", "a b c d e f", "f", 5, true, change{}},
		{"in the metadata nobody goes by himself", "a b c-", "b", "", 5, true, change{}},
		{"an unwanted voter does not count", "a b x c-", "a b c", "c", 3, false, change{changePromote, "c"}},
	} {
		m := membership{servers: servers(tt.has), want: strings.Fields(tt.want), self: "a", votersMax: tt.votersMax, grows: tt.grows}
		got := m.next(func(id string) bool { return strings.Contains(tt.caughtUp, id) })
		if got != tt.next {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.next)
		}
	}
}
