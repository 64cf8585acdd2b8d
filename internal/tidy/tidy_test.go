package tidy

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

const moduleRoot = "../.."

// rules are all that look at the source as it stands; Purity needs types too.
var rules = []struct {
	name  string
	check func(*Tree) []Fault
}{
	{"formatting", Formatting},
	{"imports", Imports},
	{"sizes", Sizes},
	{"docs", Docs},
	{"names", Names},
	{"statements", Statements},
	{"state", State},
}

func TestTreeIsTidy(t *testing.T) {
	tree, err := Load(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 10 {
		t.Fatalf("only %d files found", len(tree.Files))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { report(t, r.check(tree)) })
	}
}

func TestPureRoomsArePure(t *testing.T) {
	fset, files, err := LoadPure(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no pure room found")
	}
	for _, f := range files {
		report(t, Purity(fset, f))
	}
}

func report(t *testing.T, faults []Fault) {
	t.Helper()
	slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.At, b.At) })
	for _, f := range faults {
		t.Error(f)
	}
}

// plant parses files, given as path and text in turn, as if they were a tree.
func plant(t *testing.T, files ...string) *Tree {
	t.Helper()
	tree := &Tree{Fset: token.NewFileSet()}
	for i := 0; i < len(files); i += 2 {
		if err := tree.add(files[i], []byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// wantFaults checks that each fault has its words, and that there are no more.
func wantFaults(t *testing.T, got []Fault, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(got, func(f Fault) bool { return strings.Contains(f.String(), w) }) {
			t.Errorf("no fault with %q; got %v", w, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d faults, want %d: %v", len(got), len(want), got)
	}
}

func TestUnformattedFileIsCaught(t *testing.T) {
	wantFaults(t, Formatting(plant(t, "mq/a.go", "package mq\nvar  x = 1\n")), "mq/a.go:1: is not as gofmt has it")
	wantFaults(t, Formatting(plant(t, "mq/a.go", "package mq\n\nvar x = 1\n")))
}

func TestImportsOutsideTheTableAreCaught(t *testing.T) {
	for _, tt := range []struct{ path, imports, want string }{
		{"mq/a.go", "warren/fsm/meta", "may not import warren/fsm/meta"},
		{"amqp/a.go", "warren/broker", "may not import warren/broker"},
		{"amqp/wire/a.go", "warren/amqp", "may not import warren/amqp"},
		{"fsm/queue/a.go", "warren/storage/segment", "may not import"},
		{"cluster/a.go", "warren/mq", "may not import warren/mq"},
		{"cluster/placement/a.go", "warren/cluster", "may not import"},
		{"broker/route/a.go", "warren/broker", "may not import"},
		{"broker/a.go", "warren/cluster", "may not import"},
		{"node/a.go", "warren/cmd/warren", "may not import"},
		{"test/chaos/a_test.go", "warren/node", "may not import"},
		{"attic/a.go", "warren/mq", "is a room that the import table does not have"},
		{"broker/a.go", "net", "knows no sockets"},
		{"broker/a.go", "net/http", "knows no sockets"},
		{"broker/a.go", "github.com/hashicorp/raft", "may not import github.com/hashicorp/raft"},
		{"storage/segment/a.go", "github.com/hashicorp/raft", "may not import"},
		{"node/a.go", "github.com/hashicorp/memberlist", "may not import"},
		{"node/a.go", "github.com/prometheus/client_golang/prometheus", "may not import"},
		{"amqp/a.go", "github.com/rabbitmq/amqp091-go", "may not import"},
		{"mq/a.go", "pgregory.net/rapid", "no decision in docs/adr"},
		{"mq/a.go", "github.com/some/body", "no decision in docs/adr"},

		{"mq/a.go", "fmt", ""},
		{"broker/a.go", "warren/fsm/queue", ""},
		{"broker/route/a.go", "warren/mq", ""},
		{"cluster/a.go", "warren/cluster/placement", ""},
		{"cluster/a.go", "net", ""},
		{"storage/raftlog/a.go", "github.com/hashicorp/raft-boltdb/v2", ""},
		{"amqp/a_test.go", "github.com/rabbitmq/amqp091-go", ""},
		{"fsm/queue/a_test.go", "pgregory.net/rapid", ""},
		{"mq/a_test.go", "warren/mq", ""},
	} {
		got := Imports(plant(t, tt.path, "package p\n\nimport _ \""+tt.imports+"\"\n"))
		if tt.want == "" {
			wantFaults(t, got)
			continue
		}
		wantFaults(t, got, tt.want)
	}
}

// typed type-checks a file as Purity wants it.
func typed(t *testing.T, text string) (*token.FileSet, TypedFile) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "a.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	cfg := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	if _, err := cfg.Check("p", fset, []*ast.File{f}, info); err != nil {
		t.Fatal(err)
	}
	return fset, TypedFile{f, info}
}

func TestImpurityIsCaught(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`import "time"; var _ = time.Second`, "may not import time"},
		{`import "math/rand/v2"; var _ = rand.Int`, "may not import math/rand/v2"},
		{`import "log/slog"; var _ = slog.Info`, "may not import log/slog"},
		{`import "sync/atomic"; var _ atomic.Int64`, "may not import sync/atomic"},
		{`func f() { go f() }`, "starts no goroutine"},
		{`type t struct{ c chan int }`, "has no channel"},
		{`func f() { select {} }`, "has no channel"},
		{`type m map[string]int; func f(x m) { for range x {} }`, "ranges over no map"},
		{`func f[M ~map[int]int](x M) { for k := range x { _ = k } }`, "ranges over no map"},
		{`import "maps"; func f(x map[int]int) { for k := range maps.Keys(x) { _ = k } }`, "maps.Keys only inside slices.Sorted"},
		{`import ("maps"; "slices"); func f(x map[int]int) []int { return slices.Collect(maps.Values(x)) }`, "maps.Values only inside"},
		{`import ("maps"; "slices"); func f(x map[int]int) []int { return slices.Sorted(maps.Keys(x)) }`, ""},
		{`func f(x []int) { for range x {} }`, ""},
	} {
		fset, f := typed(t, "package p\n"+tt.text+"\n")
		if got := Purity(fset, f); tt.want == "" {
			wantFaults(t, got)
		} else {
			wantFaults(t, got, tt.want)
		}
	}
	fset, f := typed(t, "package p\nfunc f(c chan int) { c <- 1; <-c; for range c {} }\n")
	if got := Purity(fset, f); len(got) != 4 {
		t.Errorf("a channel's type, send, receive and range gave %v, want 4 faults", got)
	}
}

func TestLongFilesAndFunctionsAreCaught(t *testing.T) {
	statements := strings.Repeat("\tx++\n", 69)
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\n"+strings.Repeat("\n", 800))), "the file has 801 lines")
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\nfunc f(x int) {\n"+statements+"}\n")), "f has 71 lines")
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\nfunc f(x int) {\n"+statements[5:]+"}\n")))
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\nvar f = func(x int) {\n"+statements+"}\n")), "a function has 71 lines")

	cases := strings.Repeat("\tcase 1:\n\t\tx++\n", 100)
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\nfunc f(x int) {\n\tswitch x {\n"+cases+"\t}\n}\n")))
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\nvar t = func() []int {\n\treturn []int{\n"+strings.Repeat("\t\t1,\n", 100)+"\t}\n}\n")))
	long := "\tcase 2:\n" + strings.Repeat("\t\tx++\n", 12)
	wantFaults(t, Sizes(plant(t, "mq/a.go", "package mq\nfunc f(x int) {\n\tswitch x {\n"+cases+long+"\t}\n}\n")), "f has 217 lines")
}

func TestMissingCommentsAreCaught(t *testing.T) {
	wantFaults(t, Docs(plant(t, "mq/a.go", "package mq\n")), "package mq has no package comment")
	wantFaults(t, Docs(plant(t, "mq/a.go", `// Package mq is.
package mq

func F() {}
type T struct{}
func (T) Long() {
}
func (T) Short() {}
func (t) Hidden() {
}
var V = 1
const C = 1
type t struct{}
const (
	Typed T = iota
	Next
)
`)), "F has no", "T has no", "Long has no", "V has no", "C has no")
	wantFaults(t, Docs(plant(t, "mq/doc.go", "// Package mq is.\npackage mq\n", "mq/a.go", `package mq

// F does.
func F() {}

// These are.
const (
	A = 1
	B = 2
)

const D = 1 // one
`, "mq/a_test.go", "package mq\n\nfunc Exported() {\n}\n")))
}

func TestEmptyNamesAreCaught(t *testing.T) {
	wantFaults(t, Names(plant(t,
		"mq/util.go", "package mq\n", "mq/types_test.go", "package mq\n", "mq/helpers/a.go", "package helpers\n", "mq/utility.go", "package mq\n",
	)), "not util", "not types", "not helpers")
}

func TestForbiddenStatementsAreCaught(t *testing.T) {
	wantFaults(t, Statements(plant(t, "mq/a.go", "package mq\n\nfunc init() {\nl:\n\tgoto l\n}\n\ntype t struct{}\n\nfunc (t) init() {}\n")),
		"a.go:3: has an init", "a.go:5: has a goto")
	wantFaults(t, Statements(plant(t, "mq/a_test.go", "package mq\n\nimport clock \"time\"\n\nfunc f() { clock.Sleep(1) }\n")), "a test sleeps")
	wantFaults(t, Statements(plant(t, "mq/a.go", "package mq\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n")))
}

func TestMutablePackageVariablesAreCaught(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"var x int", "x has no value"},
		{"var x = sync.Pool{}", "x can change"},
		{"var x = 1\nfunc f() { x = 2 }", "assigns to package variable x"},
		{"var x = 1\nfunc f() { x++ }", "counts in package variable x"},
		{"var x = []int{1}\nfunc f() { x[0] = 2 }", "assigns to package variable x"},
		{"var x = struct{ a []int }{}\nfunc f() { (x.a)[0] += 2 }", "assigns to package variable x"},
		{"var x = map[int]int{}\nfunc f() { delete(x, 1) }", "deletes from package variable x"},
		{"var x = 1\nfunc f() *int { return &x }", "takes the address of package variable x"},
		{"var x = 1\nfunc f() { for x = range 3 {} }", "assigns to package variable x"},

		{"var _ I = (*T)(nil)\nvar x = errors.New(\"x\")\nfunc f() { y := x; y = nil; _ = y }", ""},
		{"var x = 1\nfunc f(x int) { x = 2 }", ""},
		{"var x = map[int]int{1: 1}\nfunc f() int { return x[1] }", ""},
		{"//go:embed a.txt\nvar x string", ""},
		{"var x = func() { var m sync.Mutex; m.Lock() }", ""},
	} {
		got := State(plant(t, "mq/a.go", "package mq\n\n"+tt.text+"\n"))
		if tt.want == "" {
			wantFaults(t, got)
			continue
		}
		wantFaults(t, got, tt.want)
	}
	wantFaults(t, State(plant(t, "mq/a.go", "package mq\n\nvar x = 1\n", "mq/b.go", "package mq\n\nfunc f() { x = 2 }\n")), "b.go:3: assigns to")
}
