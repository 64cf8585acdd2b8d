package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// module is the import path of the tree.
const module = "warren"

// Tree is the Go source of a module.
type Tree struct {
	Fset  *token.FileSet
	Files []*File
}

// File is one Go file.
type File struct {
	Path string // from the module's root, with slashes
	Room string // the folder that it is in; "" is the root
	Test bool   // _test.go
	AST  *ast.File
	Text []byte
}

// Fault is a broken rule.
type Fault struct {
	At   string // file:line
	Text string
}

// String is the fault on one line.
func (f Fault) String() string { return f.At + ": " + f.Text }

// Load reads all Go files under root but for folders that the go command
// ignores too (testdata, vendor, and names that begin with . or _).
func Load(root string) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		return t.add(filepath.ToSlash(rel), text)
	})
	if err != nil {
		return nil, fmt.Errorf("read the tree at %s: %w", root, err)
	}
	return t, nil
}

func (t *Tree) add(rel string, text []byte) error {
	tree, err := parser.ParseFile(t.Fset, rel, text, parser.ParseComments)
	if err != nil {
		return err
	}
	room := path.Dir(rel)
	if room == "." {
		room = ""
	}
	t.Files = append(t.Files, &File{Path: rel, Room: room, Test: strings.HasSuffix(rel, "_test.go"), AST: tree, Text: text})
	return nil
}

// fault makes a Fault at a place in the source.
func (t *Tree) fault(at token.Pos, text string, args ...any) Fault {
	p := t.Fset.Position(at)
	return Fault{fmt.Sprintf("%s:%d", p.Filename, p.Line), fmt.Sprintf(text, args...)}
}

func (t *Tree) line(at token.Pos) int { return t.Fset.Position(at).Line }

// lines is how many lines n takes.
func (t *Tree) lines(n ast.Node) int { return t.line(n.End()) - t.line(n.Pos()) + 1 }

// within reports whether room is one of rooms or in a folder of one.
func within(room string, rooms ...string) bool {
	for _, r := range rooms {
		if room == r || strings.HasPrefix(room, r+"/") {
			return true
		}
	}
	return false
}

// Formatting finds files that gofmt would change.
func Formatting(t *Tree) (faults []Fault) {
	for _, f := range t.Files {
		if want, err := format.Source(f.Text); err != nil || !bytes.Equal(want, f.Text) {
			faults = append(faults, Fault{f.Path + ":1", "is not as gofmt has it"})
		}
	}
	return faults
}
