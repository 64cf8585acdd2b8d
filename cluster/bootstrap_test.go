package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// idle is a data directory whose node has an id and never ran.
func idle(t *testing.T) (dir, id string) {
	t.Helper()
	dir = t.TempDir()
	i, err := openIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	return dir, i.get().ID
}

func editIdentity(t *testing.T, dir string, change func(*nodeFile)) {
	t.Helper()
	i, err := openIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	if err := i.update(func(f *nodeFile) bool { change(f); return true }); err != nil {
		t.Fatal(err)
	}
}

// threeIdle makes three directories, in order of their ids.
func threeIdle(t *testing.T) (dirs, ids []string) {
	t.Helper()
	byID := map[string]string{}
	for range 3 {
		dir, id := idle(t)
		byID[id] = dir
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		dirs = append(dirs, byID[id])
	}
	return dirs, ids
}

// startAll starts the directories in the given order, each knowing those
// before it, and checks that one cluster comes of it.
func startAll(t *testing.T, dirs []string, order []int) string {
	t.Helper()
	var nodes []*node
	var join []string
	for _, i := range order {
		cfg := loopback(t)
		cfg.DataDir, cfg.BootstrapExpect, cfg.Join = dirs[i], 3, slices.Clone(join)
		n := start(t, cfg, nil)
		join = append(join, n.Advertised())
		nodes = append(nodes, n)
	}
	id := nodes[0].formed(t).ClusterID
	for _, n := range nodes {
		if f := n.formed(t); f.ClusterID != id || len(f.Founders) != 3 || !f.Bootstrap {
			t.Errorf("formation %+v, want cluster %s", f, id)
		}
	}
	return id
}

func TestAnyStartOrderFormsOneCluster(t *testing.T) {
	t.Parallel() // it waits most of its time
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		dirs, _ := threeIdle(t)
		startAll(t, dirs, order)
	}
}

// TestACrashWhileFoundingLeavesOneCluster starts nodes from what a crash at each
// moment of the founding leaves behind.
func TestACrashWhileFoundingLeavesOneCluster(t *testing.T) {
	t.Parallel() // it waits most of its time
	prepare := func(p *founding) func(*nodeFile) { return func(f *nodeFile) { f.Prepared = p } }
	commit := func(p *founding) func(*nodeFile) {
		return func(f *nodeFile) { f.ClusterID, f.Founders, f.Prepared = p.ClusterID, p.Founders, nil }
	}
	for _, c := range []struct {
		what  string
		crash func(p *founding) [3]func(*nodeFile)
		keeps bool // the attempt must have become the cluster
	}{
		{"the coordinator has promised", func(p *founding) [3]func(*nodeFile) {
			return [3]func(*nodeFile){prepare(p), nil, nil}
		}, true},
		{"one other has promised", func(p *founding) [3]func(*nodeFile) {
			return [3]func(*nodeFile){prepare(p), nil, prepare(p)}
		}, true},
		{"all have promised", func(p *founding) [3]func(*nodeFile) {
			return [3]func(*nodeFile){prepare(p), prepare(p), prepare(p)}
		}, true},
		{"the coordinator has decided", func(p *founding) [3]func(*nodeFile) {
			return [3]func(*nodeFile){commit(p), prepare(p), prepare(p)}
		}, true},
		{"one other knows", func(p *founding) [3]func(*nodeFile) {
			return [3]func(*nodeFile){commit(p), commit(p), prepare(p)}
		}, true},
		{"the coordinator gave up and one other was not told", func(p *founding) [3]func(*nodeFile) {
			return [3]func(*nodeFile){nil, nil, prepare(p)}
		}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			dirs, ids := threeIdle(t)
			p := &founding{ClusterID: clusterC1, Founders: ids}
			for i, change := range c.crash(p) {
				if change != nil {
					editIdentity(t, dirs[i], change)
				}
			}
			id := startAll(t, dirs, []int{2, 0, 1})
			if (id == clusterC1) != c.keeps {
				t.Errorf("the cluster is %s", id)
			}
		})
	}
}

func TestAFreshNodeAmongMembersJoinsInsteadOfFounding(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, nil)
	cfg := loopback(t)
	cfg.BootstrapExpect, cfg.Join = 3, []string{nodes[2].Advertised()}
	for _, n := range nodes {
		n.former.onJoin = nil // nobody lets it in
	}
	late := start(t, cfg, nil)
	eventually(t, "it sees the members", func() bool { return len(late.Members()) == 4 })
	if f := late.identity.get(); f.ClusterID != "" || f.Prepared != nil {
		t.Errorf("it founded something: %+v", f)
	}
}

func TestANodeOfItsOwnFormsAtOnceAndStaysFounded(t *testing.T) {
	n := start(t, loopback(t), nil)
	f := n.formed(t)
	if !f.Bootstrap || len(f.Founders) != 1 || f.Founders[0] != n.id {
		t.Errorf("formation %+v", f)
	}
	if err := n.Founded(); err != nil {
		t.Fatal(err)
	}
	n.stop(t)
	again := start(t, n.cfg, nil)
	if g := again.formed(t); g.Bootstrap || g.ClusterID != f.ClusterID || again.id != n.id {
		t.Errorf("formation %+v", g)
	}
}

func TestALostIdentityIsNotReplaced(t *testing.T) {
	dir, _ := idle(t)
	if err := os.Mkdir(filepath.Join(dir, groupsDir), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, nodeFileName)); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(dir); err == nil {
		t.Error("a new id was drawn beside old votes")
	}
	if err := os.WriteFile(filepath.Join(dir, nodeFileName), []byte(`{"id":"../etc"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(dir); err == nil {
		t.Error("a malformed id was taken")
	}
}
