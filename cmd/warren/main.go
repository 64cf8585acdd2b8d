// Command warren is the one binary of Warren: it runs a node (server), a
// local cluster (up), looks after a cluster (ctl) and loads one (bench). It is
// the only place that reads flags, configuration files and the environment; it
// knows nothing of what a node does with them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// The first signal asks for a clean stop, which is what the context tells;
	// after it the signals have their default effect again, so that a second
	// one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := commandFor(os.Args[0]).ExecuteContext(ctx)
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, exit.text)
		os.Exit(exit.code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "warren:", err)
		os.Exit(1)
	}
}

// commandFor is what the binary does under a name: as rabbitmqctl, which a
// link makes it, it is `warren ctl`.
func commandFor(path string) *cobra.Command {
	if name := filepath.Base(path); name == "rabbitmqctl" {
		return ctlCommand(name)
	}
	return rootCommand()
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "warren",
		Short: "An AMQP 0-9-1 broker that is replicated by Raft and takes RabbitMQ's clients",
		Long: `Warren is an AMQP 0-9-1 broker in one binary. Every durable queue is replicated
by Raft, and a publisher confirm means that the message is on the disks of a
majority. RabbitMQ's clients work against any node of a cluster.`,
		Example: `  warren up --nodes 3          a cluster of three nodes on this machine
  warren server                one node, on RabbitMQ's ports
  warren ctl status            members, groups and queues of a cluster
  warren ctl add_user bob      and the rest of rabbitmqctl's daily commands
  warren bench                 load on a cluster, and what it stood`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serverCommand(), upCommand(), ctlCommand("ctl"), benchCommand(), versionCommand())
	return root
}
