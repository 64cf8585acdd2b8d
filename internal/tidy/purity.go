package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strconv"

	"golang.org/x/tools/go/packages"
)

// pure are the rooms whose answers depend on their arguments alone: replicas
// that apply the same log must come to the same state, and a placement must be
// the same on every node that works it out.
var pure = []string{"fsm", "broker/route", "broker/dispatch", "cluster/placement"}

// impureImports are what a pure room may not import, with all below.
var impureImports = []string{"time", "math/rand", "crypto/rand", "os", "net", "sync", "context", "log", "syscall", "unsafe"}

// mapOrder are the functions of package maps that iterate in map order; fine
// only as the argument of a function of package slices that sorts.
var (
	mapOrder = map[string]bool{"Keys": true, "Values": true, "All": true}
	sorting  = map[string]bool{"Sorted": true, "SortedFunc": true, "SortedStableFunc": true}
)

// TypedFile is a file with the types of its expressions.
type TypedFile struct {
	AST  *ast.File
	Info *types.Info
}

// LoadPure type-checks the pure rooms of the module at root; tests are left out.
func LoadPure(root string) (*token.FileSet, []TypedFile, error) {
	var patterns []string
	for _, room := range pure {
		patterns = append(patterns, "./"+room+"/...")
	}
	cfg := &packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports,
		Dir:  root,
		Fset: token.NewFileSet(),
	}
	loaded, err := packages.Load(cfg, patterns...)
	if err != nil {
		return nil, nil, fmt.Errorf("load pure rooms: %w", err)
	}
	var files []TypedFile
	for _, p := range loaded {
		for _, e := range p.Errors {
			return nil, nil, fmt.Errorf("load %s: %w", p.PkgPath, e)
		}
		for _, f := range p.Syntax {
			files = append(files, TypedFile{f, p.TypesInfo})
		}
	}
	return cfg.Fset, files, nil
}

// Purity finds what makes a file of a pure room depend on anything but its
// arguments: clocks, chance, the machine, other goroutines, the order of maps.
func Purity(fset *token.FileSet, f TypedFile) (faults []Fault) {
	add := func(at ast.Node, text string, args ...any) {
		p := fset.Position(at.Pos())
		faults = append(faults, Fault{fmt.Sprintf("%s:%d", p.Filename, p.Line), "a pure room " + fmt.Sprintf(text, args...)})
	}
	for _, spec := range f.AST.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil && within(p, impureImports...) {
			add(spec, "may not import %s", p)
		}
	}
	sorted := map[ast.Expr]bool{} // arguments of functions that sort
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n, "starts no goroutine")
		case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
			add(n, "has no channel")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				add(n, "has no channel")
			}
		case *ast.RangeStmt:
			for _, under := range underlying(f.Info.TypeOf(n.X)) {
				switch under.(type) {
				case *types.Map:
					add(n, "ranges over no map: its order differs from run to run")
				case *types.Chan:
					add(n, "has no channel")
				}
			}
		case *ast.CallExpr:
			switch pkg, name := callee(f.Info, n); {
			case pkg == "slices" && sorting[name] && len(n.Args) > 0:
				sorted[n.Args[0]] = true
			case pkg == "maps" && mapOrder[name] && !sorted[n]:
				add(n, "uses maps.%s only inside slices.Sorted: its order differs from run to run", name)
			}
		}
		return true
	})
	return faults
}

// underlying are the types that t may stand for: one, unless t is a type
// parameter.
func underlying(t types.Type) (all []types.Type) {
	param, ok := t.(*types.TypeParam)
	if !ok {
		if t == nil {
			return nil
		}
		return []types.Type{t.Underlying()}
	}
	constraint, ok := param.Constraint().Underlying().(*types.Interface)
	if !ok {
		return nil
	}
	for embedded := range constraint.EmbeddedTypes() {
		union, ok := embedded.(*types.Union)
		if !ok {
			all = append(all, embedded.Underlying())
			continue
		}
		for term := range union.Terms() {
			all = append(all, term.Type().Underlying())
		}
	}
	return all
}

// callee is the package and name of the package-level function that a call is of.
func callee(info *types.Info, call *ast.CallExpr) (pkg, name string) {
	fun := call.Fun
	if index, ok := fun.(*ast.IndexExpr); ok {
		fun = index.X
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	if f, ok := info.Uses[sel.Sel].(*types.Func); ok && f.Pkg() != nil {
		return f.Pkg().Path(), f.Name()
	}
	return "", ""
}
