package tidy

import (
	"go/ast"
	"go/token"
)

// Docs finds packages without a comment and exported identifiers without one.
//
// A constant needs none of its own if its group has one or if its type is
// documented, a method none if it is one line, as those of sealed interfaces
// and of sort and error are. Package main and tests export nothing.
func Docs(t *Tree) (faults []Fault) {
	documented := map[string]bool{} // rooms with a package comment
	first := map[string]*File{}     // the place to complain at
	for _, f := range t.Files {
		if first[f.Room] == nil {
			first[f.Room] = f
		}
		if f.AST.Doc != nil {
			documented[f.Room] = true
		}
		if f.Test || f.AST.Name.Name == "main" {
			continue
		}
		for _, d := range f.AST.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				faults = append(faults, t.functionDoc(d)...)
			case *ast.GenDecl:
				faults = append(faults, t.declarationDocs(d)...)
			}
		}
	}
	for room, f := range first {
		if !documented[room] {
			faults = append(faults, t.fault(f.AST.Pos(), "package %s has no package comment", f.AST.Name.Name))
		}
	}
	return faults
}

func (t *Tree) functionDoc(d *ast.FuncDecl) []Fault {
	if d.Doc != nil || !d.Name.IsExported() {
		return nil
	}
	if d.Recv != nil && (!receiverExported(d.Recv) || t.lines(d) == 1) {
		return nil
	}
	return []Fault{t.fault(d.Pos(), "exported %s has no comment", d.Name.Name)}
}

func receiverExported(recv *ast.FieldList) bool {
	typ := recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func (t *Tree) declarationDocs(d *ast.GenDecl) (faults []Fault) {
	if d.Doc != nil || d.Tok == token.IMPORT {
		return nil
	}
	typed := false // constants of a type, which the type's comment covers
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
				faults = append(faults, t.fault(s.Pos(), "exported %s has no comment", s.Name.Name))
			}
		case *ast.ValueSpec:
			if d.Tok == token.CONST && (s.Type != nil || len(s.Values) > 0) {
				typed = s.Type != nil
			}
			if s.Doc != nil || s.Comment != nil || typed {
				continue
			}
			for _, name := range s.Names {
				if name.IsExported() {
					faults = append(faults, t.fault(name.Pos(), "exported %s has no comment", name.Name))
				}
			}
		}
	}
	return faults
}
