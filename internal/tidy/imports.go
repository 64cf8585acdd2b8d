package tidy

import (
	"strconv"
	"strings"
)

// own says which of our rooms a room may import. The longest name that fits a
// room counts, and a room may import itself. Folders below a listed room are
// listed with it.
var own = map[string][]string{
	"mq":                {},
	"internal/fields":   {},
	"amqp/wire":         {"mq"},
	"amqp":              {"mq", "amqp"},
	"fsm":               {"mq", "amqp/wire", "internal/fields", "fsm"},
	"storage":           {"mq", "internal/fields", "storage"},
	"cluster":           {"internal/fields", "storage", "cluster"},
	"cluster/placement": {},
	"management":        {"mq", "fsm"},
	"broker":            {"mq", "amqp/wire", "internal/fields", "fsm", "storage", "broker"},
	"broker/route":      {"mq"},
	"broker/dispatch":   {"mq"},
	"node":              {"mq", "amqp", "fsm", "storage", "cluster", "management", "broker"},
	"cmd":               {"node", "management"}, // management: what `ctl` reads off a node
	"internal/tidy":     {},
	"test":              {"test", "management"}, // management: what the harness reads off a node
}

// others says which rooms may import a module that is not ours. Tests have
// what testOthers says, too.
var others = map[string][]string{
	"github.com/hashicorp/raft":               {"cluster", "storage/raftlog", "storage/snapshot"},
	"github.com/hashicorp/raft-boltdb":        {"storage/raftlog"},
	"go.etcd.io/bbolt":                        {"storage/raftlog"},
	"github.com/hashicorp/memberlist":         {"cluster"},
	"github.com/hashicorp/go-hclog":           {"cluster"},
	"github.com/hashicorp/go-immutable-radix": {"fsm/meta"},
	"github.com/prometheus":                   {"management"},
	"github.com/spf13/cobra":                  {"cmd"},
	"github.com/spf13/pflag":                  {"cmd"},
	"github.com/rabbitmq/amqp091-go":          {"cmd", "test"},
	"golang.org/x/sys":                        {"storage/vfs", "cluster", "node"},
	"golang.org/x/tools":                      {"internal/tidy"},
}

// testOthers are modules for _test.go files of any room: properties, and a
// client to put a server to the test.
var testOthers = []string{"pgregory.net/rapid", "github.com/rabbitmq/amqp091-go", "github.com/anishathalye/porcupine"}

// socketless are rooms that know no sockets.
var socketless = []string{"mq", "amqp/wire", "broker", "fsm", "storage"}

// Imports finds imports that the tables do not have.
func Imports(t *Tree) (faults []Fault) {
	for _, f := range t.Files {
		for _, spec := range f.AST.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // the parser has seen to that
			}
			if why := importFault(f, p); why != "" {
				faults = append(faults, t.fault(spec.Pos(), "%s %s", f.Room, why))
			}
		}
	}
	return faults
}

func importFault(f *File, p string) string {
	if room, ok := strings.CutPrefix(p, module+"/"); ok {
		allowed, known := own[longest(f.Room, own)]
		switch {
		case !known:
			return "is a room that the import table does not have"
		case room == f.Room || within(room, allowed...):
			return ""
		}
		return "may not import " + p
	}
	first, _, _ := strings.Cut(p, "/")
	if !strings.Contains(first, ".") { // the standard library
		if (first == "net") && !f.Test && within(f.Room, socketless...) {
			return "knows no sockets, and may not import " + p
		}
		return ""
	}
	if f.Test && within(p, testOthers...) {
		return ""
	}
	rooms, known := others[longest(p, others)]
	switch {
	case !known:
		return "imports " + p + ", a module that no decision in docs/adr allows yet"
	case within(f.Room, rooms...):
		return ""
	}
	return "may not import " + p
}

// longest is the longest key of table that is name or a folder above it.
func longest(name string, table map[string][]string) string {
	for ; name != ""; name = parent(name) {
		if _, ok := table[name]; ok {
			return name
		}
	}
	return ""
}

func parent(name string) string {
	at := strings.LastIndexByte(name, '/')
	if at < 0 {
		return ""
	}
	return name[:at]
}
