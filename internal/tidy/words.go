package tidy

import (
	"go/ast"
	"go/token"
	"path"
	"strconv"
	"strings"
)

// emptyNames say nothing of what is in a file or a package.
var emptyNames = map[string]bool{
	"util": true, "utils": true, "common": true, "helper": true, "helpers": true,
	"type": true, "types": true, "interface": true, "interfaces": true, "misc": true, "base": true,
}

// Names finds files and folders that are named for nothing.
func Names(t *Tree) (faults []Fault) {
	for _, f := range t.Files {
		name := strings.TrimSuffix(strings.TrimSuffix(path.Base(f.Path), ".go"), "_test")
		if emptyNames[name] {
			faults = append(faults, t.fault(f.AST.Pos(), "a file is named for what is in it, not %s", name))
		}
		if room := path.Base(f.Room); emptyNames[room] {
			faults = append(faults, t.fault(f.AST.Pos(), "a package is named for what it does, not %s", room))
		}
	}
	return faults
}

// Statements finds goto and init everywhere, and time.Sleep in tests: a test
// waits for a condition, or runs on fake time.
func Statements(t *Tree) (faults []Fault) {
	for _, f := range t.Files {
		clock := importName(f.AST, "time")
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BranchStmt:
				if n.Tok == token.GOTO {
					faults = append(faults, t.fault(n.Pos(), "has a goto"))
				}
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					faults = append(faults, t.fault(n.Pos(), "has an init: things start where they are called"))
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if ok && f.Test && clock != "" && x.Name == clock && x.Obj == nil && n.Sel.Name == "Sleep" {
					faults = append(faults, t.fault(n.Pos(), "a test sleeps: wait for the condition, or use testing/synctest"))
				}
			}
			return true
		})
	}
	return faults
}

// importName is what a file calls a package; "" if it does not import it.
func importName(f *ast.File, importPath string) string {
	for _, spec := range f.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}
