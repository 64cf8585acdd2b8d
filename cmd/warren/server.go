package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"warren/node"
)

const serverHelp = `Run one node until it is told to stop (Ctrl-C or SIGTERM). A stopping node hands
over what it leads before it goes.

On its own it is a cluster of one, on RabbitMQ's ports, that others can join:

  warren server
  warren server --join first-host:25672

Three fresh nodes with the same list form a cluster; the order of their start
does not matter, and nodes with state find each other again by it:

  warren server --bootstrap-expect 3 --join a:25672,b:25672,c:25672

An address is host:port, or a port alone for all interfaces. Flags win over
environment variables, which win over the file. Files have RabbitMQ's form and,
where the meaning is the same, its keys:

  listeners.tcp.default    = 5672
  management.tcp.port      = 15672
  default_user             = guest
  cluster.listen           = 25672
  cluster.join             = a:25672,b:25672,c:25672
  cluster.bootstrap_expect = 3
  cluster.secret_file      = /etc/warren/secret
  log.console.level        = info

Each flag has its variable: --amqp-listen is WARREN_AMQP_LISTEN. A new cluster
takes its first user and virtual host from RABBITMQ_DEFAULT_USER, _PASS, _VHOST.`

func serverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "server",
		Short: "Run one node",
		Long:  serverHelp,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := serverConfig(c.Flags(), os.Getenv)
			if err != nil {
				return err
			}
			defer holdHeapFloor()()
			go trimHeap(c.Context())           // ends with the process's context
			if os.Getenv("GOMEMLIMIT") == "" { // else somebody has decided
				cfg.HoldMemory = holdMemory
			}
			cfg.LogLevelVar = new(slog.LevelVar)
			cfg.LogLevelVar.Set(cfg.LogLevel)
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.LogLevelVar}))
			return node.Run(c.Context(), cfg, log)
		},
	}
	addServerFlags(c.Flags())
	return c
}

// addServerFlags adds a flag for each setting that has one. They are all of
// text, so that one row of the table can read them, the file and the
// environment alike.
func addServerFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.String("config", "", "configuration `file`")
	shown := map[string]string{ // the defaults of node.Default, as one would type them
		"data-dir": "warren-data/server", "name": "", "amqp-listen": ":5672", "http-listen": ":15672",
		"cluster-listen": ":25672", "log-level": "info",
	}
	for _, s := range settings() {
		if s.flag != "" {
			flags.String(s.flag, shown[s.flag], s.help)
		}
	}
}

// expectUnsaid stands for a BootstrapExpect that nobody gave: then a node
// that is told whom to join does not form a cluster of its own.
const expectUnsaid = -1

// serverConfig puts a node's Config together: defaults, then the file, then
// the environment, then flags.
func serverConfig(flags *pflag.FlagSet, getenv func(string) string) (node.Config, error) {
	cfg := node.Default()
	cfg.Name = defaultName()
	cfg.BootstrapExpect = expectUnsaid
	path, err := flags.GetString("config")
	if err != nil {
		return cfg, err
	}
	if path == "" {
		path = getenv("WARREN_CONFIG")
	}
	if path != "" {
		if err := applyFile(&cfg, path); err != nil {
			return cfg, err
		}
	}
	if err := applyEnv(&cfg, getenv); err != nil {
		return cfg, err
	}
	for _, s := range settings() {
		f := flags.Lookup(s.flag)
		if s.flag == "" || f == nil || !f.Changed {
			continue
		}
		if err := s.set(&cfg, f.Value.String()); err != nil {
			return cfg, fmt.Errorf("--%s: %w", s.flag, err)
		}
	}
	if cfg.BootstrapExpect == expectUnsaid {
		cfg.BootstrapExpect = 1
		if len(cfg.Join) > 0 {
			cfg.BootstrapExpect = 0
		}
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("configuration: %w", err)
	}
	return cfg, nil
}

// defaultName is warren@ and the host's name up to the first dot.
func defaultName() string {
	host, err := os.Hostname()
	host, _, _ = strings.Cut(host, ".")
	if err != nil || host == "" {
		host = "localhost"
	}
	return "warren@" + host
}
