package tidy

import (
	"go/ast"
	"go/token"
	"strings"
)

// stateTypes are packages whose types hold state that changes.
var stateTypes = map[string]bool{"sync": true, "atomic": true}

// State finds package variables that can change. A package variable has a
// value where it is declared, and then nothing in the package assigns to it or
// to a part of it, takes its address, or deletes from it; and it is not made of
// sync or sync/atomic. What is left are sentinel errors, compiled patterns and
// tables.
func State(t *Tree) (faults []Fault) {
	rooms := map[string][]*File{}
	for _, f := range t.Files {
		key := f.Room + " " + f.AST.Name.Name // p and p_test have different variables
		rooms[key] = append(rooms[key], f)
	}
	for _, files := range rooms {
		vars := map[string]bool{}
		for _, f := range files {
			faults = append(faults, t.declaredState(f, vars)...)
		}
		for _, f := range files {
			faults = append(faults, t.changedState(f, vars)...)
		}
	}
	return faults
}

// declaredState judges declarations, and gathers the names of package variables.
func (t *Tree) declaredState(f *File, vars map[string]bool) (faults []Fault) {
	for _, d := range f.AST.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			spec := s.(*ast.ValueSpec)
			for _, name := range spec.Names {
				if name.Name == "_" {
					continue
				}
				vars[name.Name] = true
				if len(spec.Values) == 0 && !embedded(g, spec) {
					faults = append(faults, t.fault(name.Pos(), "package variable %s has no value: state has an owner", name.Name))
				}
				if holdsState(spec) {
					faults = append(faults, t.fault(name.Pos(), "package variable %s can change: state has an owner", name.Name))
				}
			}
		}
	}
	return faults
}

func embedded(g *ast.GenDecl, spec *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{g.Doc, spec.Doc} {
		if doc == nil {
			continue
		}
		for _, c := range doc.List {
			if strings.HasPrefix(c.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

// holdsState reports whether a type or a value of a variable is made of sync
// or sync/atomic. A function's body is not the variable's value.
func holdsState(spec *ast.ValueSpec) (found bool) {
	look := func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			return false
		}
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && stateTypes[x.Name] {
				found = true
			}
		}
		return true
	}
	if spec.Type != nil {
		ast.Inspect(spec.Type, look)
	}
	for _, v := range spec.Values {
		ast.Inspect(v, look)
	}
	return found
}

// changedState finds what changes a package variable.
func (t *Tree) changedState(f *File, vars map[string]bool) (faults []Fault) {
	check := func(e ast.Expr, what string) {
		if x := root(e); x != nil && vars[x.Name] && isPackageLevel(f, x) {
			faults = append(faults, t.fault(e.Pos(), "%s package variable %s: state has an owner", what, x.Name))
		}
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					check(e, "assigns to")
				}
			}
		case *ast.IncDecStmt:
			check(n.X, "counts in")
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				check(n.Key, "assigns to")
				if n.Value != nil {
					check(n.Value, "assigns to")
				}
			}
		case *ast.UnaryExpr:
			if _, literal := n.X.(*ast.CompositeLit); n.Op == token.AND && !literal {
				check(n.X, "takes the address of")
			}
		case *ast.CallExpr:
			if fun, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (fun.Name == "delete" || fun.Name == "clear") && fun.Obj == nil {
				check(n.Args[0], "deletes from")
			}
		}
		return true
	})
	return faults
}

// root is the variable at the root of x, x.f, x[i], *x and (x).
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// isPackageLevel reports whether a name means the package's variable: the
// parser resolves names of the same file, those of other files it leaves open.
func isPackageLevel(f *File, x *ast.Ident) bool {
	if x.Obj == nil {
		return true
	}
	return f.AST.Scope.Lookup(x.Name) == x.Obj
}
