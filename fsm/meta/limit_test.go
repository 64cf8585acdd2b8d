package meta

import (
	"strings"
	"testing"
)

func TestAClusterIsNamedByAGlobalParameter(t *testing.T) {
	l := newLog(t)
	if name, ok := l.state.View().ClusterName(); ok {
		t.Errorf("a cluster that nobody named is named %q", name)
	}
	op, err := SetClusterName(`the "burrow"`)
	if err != nil {
		t.Fatal(err)
	}
	l.must(op)
	if name, ok := l.state.View().ClusterName(); !ok || name != `the "burrow"` {
		t.Errorf("the cluster is named %q, %v", name, ok)
	}
	if name, ok := GlobalParameterName(op.Name); !ok || name != "cluster_name" {
		t.Errorf("the name is kept as %s", op.Name)
	}
	l.must(SettingDelete{Name: op.Name})
	if name, ok := l.state.View().ClusterName(); ok {
		t.Errorf("a name that was taken back is %q", name)
	}
}

func TestAClusterIsNotNamedByWhatIsNoName(t *testing.T) {
	l := newLog(t)
	for _, value := range []string{`7`, `null`, `{"a":1}`, `""`, `nojson`, `"` + strings.Repeat("x", ClusterNameBytesMax+1) + `"`} {
		l.must(SettingPut{Name: GlobalParameter("cluster_name"), Value: value})
		if name, ok := l.state.View().ClusterName(); ok {
			t.Errorf("%s names the cluster %q", value, name)
		}
	}
}
