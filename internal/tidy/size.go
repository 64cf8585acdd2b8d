package tidy

import (
	"bytes"
	"go/ast"
)

const (
	fileLinesMax     = 800
	functionLinesMax = 70
	// flatCaseLinesMax is how long the cases of a switch may be that counts as
	// a table.
	flatCaseLinesMax = 12
)

// Sizes finds files and functions that are too long. What reads like a table
// counts as one line of its function, however long it is: a composite literal,
// and a switch or select whose every case is at most flatCaseLinesMax lines.
func Sizes(t *Tree) (faults []Fault) {
	for _, f := range t.Files {
		if n := bytes.Count(f.Text, []byte("\n")); n > fileLinesMax && !ast.IsGenerated(f.AST) {
			faults = append(faults, t.fault(f.AST.Pos(), "the file has %d lines, the limit is %d", n, fileLinesMax))
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			var body *ast.BlockStmt
			name := "a function"
			switch n := n.(type) {
			case *ast.FuncDecl:
				name, body = n.Name.Name, n.Body
			case *ast.FuncLit:
				body = n.Body
			}
			if body == nil {
				return true
			}
			if got := t.functionLines(n, body); got > functionLinesMax {
				faults = append(faults, t.fault(n.Pos(), "%s has %d lines that are not a table, the limit is %d", name, got, functionLinesMax))
			}
			return true
		})
	}
	return faults
}

// functionLines counts a function's lines, tables as one each.
func (t *Tree) functionLines(fn ast.Node, body *ast.BlockStmt) int {
	count := t.lines(fn)
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			count -= t.lines(n) - 1
			return false
		case *ast.SwitchStmt:
			return !t.foldFlat(n.Body, &count)
		case *ast.TypeSwitchStmt:
			return !t.foldFlat(n.Body, &count)
		case *ast.SelectStmt:
			return !t.foldFlat(n.Body, &count)
		}
		return true
	})
	return count
}

// foldFlat counts a block of cases as one line if all of them are short.
func (t *Tree) foldFlat(body *ast.BlockStmt, count *int) bool {
	for _, c := range body.List {
		if t.lines(c) > flatCaseLinesMax {
			return false
		}
	}
	*count -= t.lines(body) - 1
	return true
}
