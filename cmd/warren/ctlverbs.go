package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"warren/management"
	"warren/node"
)

// verb is one command of `ctl`, with the arguments and options of rabbitmqctl's
// command of that name.
type verb struct {
	name, args, short string
	least, most       int // arguments; -1 for any number
	options           []string
	banner            func(*ctlCall) string
	columns           []string             // of a list
	known             []string             // columns that the arguments may name, if they name columns
	run               func(*ctlCall) error // nil: the node does it
	done              string               // said after it
	// password is how many arguments there are when the next one, a password,
	// comes from the standard input.
	password int
}

// says makes a banner of a format and what is put into it.
func says(format string, words ...func(*ctlCall) string) func(*ctlCall) string {
	return func(c *ctlCall) string {
		args := make([]any, len(words))
		for i, w := range words {
			args[i] = w(c)
		}
		return fmt.Sprintf(format, args...)
	}
}

func inVHost(c *ctlCall) string { return c.vhost() }

func onNode(c *ctlCall) string {
	if n := c.option("node"); n != "" {
		return n
	}
	return "the local node"
}

func arg(i int) func(*ctlCall) string {
	return func(c *ctlCall) string {
		if i < len(c.args) {
			return c.args[i]
		}
		return ""
	}
}

func priority(c *ctlCall) string {
	if p := c.option("priority"); p != "" {
		return p
	}
	return "0"
}

// Columns that a list has, by what is listed.
func queueColumns() []string {
	return []string{
		"name", "vhost", "messages", "messages_ready", "messages_unacknowledged", "consumers", "durable", "auto_delete",
		"exclusive", "arguments", "policy", "operator_policy", "effective_policy_definition", "type", "group", "leader", "state",
	}
}

func unresponsiveColumns() []string {
	return []string{"name", "durable", "auto_delete", "arguments", "pid"}
}

func exchangeColumns() []string {
	return []string{"name", "vhost", "type", "durable", "auto_delete", "internal", "arguments", "policy"}
}

func bindingColumns() []string {
	return []string{"source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments", "vhost"}
}

func vhostColumns() []string {
	return []string{"name", "description", "tags", "default_queue_type", "tracing"}
}

func connectionColumns() []string {
	return []string{
		"pid", "name", "user_provided_name", "user", "vhost", "node", "state", "channels", "peer_host", "peer_port", "host", "port",
		"ssl", "protocol", "auth_mechanism", "channel_max", "frame_max", "timeout", "connected_at", "recv_oct", "send_oct", "client_properties",
	}
}

func channelColumns() []string {
	return []string{
		"pid", "connection", "name", "number", "user", "vhost", "node", "transactional", "confirm", "consumer_count",
		"messages_unacknowledged", "messages_unconfirmed", "prefetch_count", "global_prefetch_count",
	}
}

func consumerColumns() []string {
	return []string{"queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"}
}

// verbs are all of them, in the order of the help.
func verbs() []verb {
	return slices.Concat(nodeVerbs(), userVerbs(), policyVerbs(), limitVerbs(), vhostVerbs(), objectVerbs(), definitionVerbs())
}

func nodeVerbs() []verb {
	return []verb{
		{name: "status", short: "Members, groups with their leaders, queues with their counts", options: []string{"json", "queues"}, run: ctlStatus},
		{name: "cluster_status", short: "Who is in the cluster", run: ctlClusterStatus},
		{name: "set_cluster_name", args: "<name>", short: "Give the cluster another name", least: 1, most: 1, banner: says("Setting cluster name to %s ...", arg(0))},
		{name: "stop", args: "[--idempotent] [<pidfile>]", short: "End a node's process, which hands over what it leads", most: 1, options: []string{"idempotent"}, run: ctlStop, banner: func(c *ctlCall) string {
			if len(c.args) == 1 {
				return fmt.Sprintf("Stopping and halting node %s (will monitor pid file %s) ...", onNode(c), c.args[0])
			}
			return fmt.Sprintf("Stopping and halting node %s ...", onNode(c))
		}},
		{name: "shutdown", args: "[--wait | --no-wait]", short: "End a node's process, and wait for that if it is on this machine", options: []string{"wait", "no-wait"}, run: ctlShutdown},
		{name: "set_log_level", args: "<level>", short: "How severe things have to be that are logged, until the node ends", least: 1, most: 1, banner: says(`Setting log level to "%s" ...`, arg(0))},
		{name: "environment", short: "What the node goes by, as a configuration file has it", banner: says("Application environment of node %s ...", onNode), run: ctlEnvironment},
		{name: "report", short: "All that the other commands show, to find out what is wrong", banner: says("Reporting server status of node %s ...", onNode), run: ctlReport},
		{name: "set_vm_memory_high_watermark", args: "<fraction> | absolute <size>", short: "How much memory the node may use before publishers wait, until it ends", least: 1, most: 2,
			banner: says("Setting memory threshold on %s to %s ...", onNode, func(c *ctlCall) string { return strings.Join(c.args, " ") })},
		{name: "set_disk_free_limit", args: "<size>", short: "How much of the disk has to stay free, until the node ends", least: 1, most: 1,
			banner: says("Setting disk free limit on %s to %s bytes ...", onNode, arg(0))},
		{name: "ping", short: "Whether the node's process is alive", run: ctlPing},
		{name: "await_startup", short: "Wait until the node serves clients", run: ctlAwaitStartup},
		{name: "version", short: "The version of this command", run: func(c *ctlCall) error {
			_, err := fmt.Fprintln(c.out, node.Version)
			return err
		}},
	}
}

func userVerbs() []verb {
	return []verb{
		{name: "add_user", args: "<username> [<password>]", short: "Add a user; the password may come from stdin", least: 2, most: 2, options: []string{"pre-hashed-password"}, password: 1,
			banner: says(`Adding user "%s" ...`, arg(0)), done: "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to learn more."},
		{name: "delete_user", args: "<username>", short: "Delete a user and close its connections", least: 1, most: 1, banner: says(`Deleting user "%s" ...`, arg(0))},
		{name: "change_password", args: "<username> [<password>]", short: "Give a user another password", least: 2, most: 2, password: 1, banner: says(`Changing password for user "%s" ...`, arg(0))},
		{name: "clear_password", args: "<username>", short: "Let nobody in as this user by any password", least: 1, most: 1, banner: says(`Clearing password for user "%s" ...`, arg(0))},
		{name: "authenticate_user", args: "<username> [<password>]", short: "Try a user's password", least: 2, most: 2, password: 1, banner: says(`Authenticating user "%s" ...`, arg(0))},
		{name: "set_user_tags", args: "<username> <tag> [...]", short: "Give a user other tags", least: 1, most: -1, banner: func(c *ctlCall) string {
			return fmt.Sprintf(`Setting tags for user "%s" to [%s] ...`, c.args[0], strings.Join(c.args[1:], ", "))
		}},
		{name: "list_users", short: "Users and their tags", columns: []string{"user", "tags"}, banner: says("Listing users ...")},
		{name: "set_permissions", args: "<username> <conf> <write> <read>", short: "What a user may do in a vhost", least: 4, most: 4, banner: says(`Setting permissions for user "%s" in vhost "%s" ...`, arg(0), inVHost)},
		{name: "clear_permissions", args: "<username>", short: "Take a user's access to a vhost away", least: 1, most: 1, banner: says(`Clearing permissions for user "%s" in vhost "%s" ...`, arg(0), inVHost)},
		{name: "list_permissions", short: "Who may do what in a vhost", columns: []string{"user", "configure", "write", "read"}, banner: says(`Listing permissions for vhost "%s" ...`, inVHost)},
		{name: "list_user_permissions", args: "<username>", short: "What a user may do", least: 1, most: 1, columns: []string{"vhost", "configure", "write", "read"}, banner: says(`Listing permissions for user "%s" ...`, arg(0))},
		{name: "set_topic_permissions", args: "<username> <exchange> <write> <read>", short: "Which routing keys a user may use at a topic exchange", least: 4, most: 4,
			banner: says(`Setting topic permissions on "%s" for user "%s" in vhost "%s" ...`, arg(1), arg(0), inVHost)},
		{name: "clear_topic_permissions", args: "<username> [<exchange>]", short: "Take that back", least: 1, most: 2, banner: func(c *ctlCall) string {
			if len(c.args) == 1 {
				return fmt.Sprintf(`Clearing topic permissions for user "%s" in vhost "%s" ...`, c.args[0], c.vhost())
			}
			return fmt.Sprintf(`Clearing topic permissions on "%s" for user "%s" in vhost "%s" ...`, c.args[1], c.args[0], c.vhost())
		}},
		{name: "list_topic_permissions", short: "Topic permissions in a vhost", columns: []string{"user", "exchange", "write", "read"}, banner: says(`Listing topic permissions for vhost "%s" ...`, inVHost)},
		{name: "list_user_topic_permissions", args: "<username>", short: "Topic permissions of a user", least: 1, most: 1, columns: []string{"vhost", "exchange", "write", "read"}, banner: says(`Listing topic permissions for user "%s" ...`, arg(0))},
	}
}

func policyVerbs() []verb {
	columns := []string{"vhost", "name", "pattern", "apply-to", "definition", "priority"}
	options := []string{"apply-to", "priority"}
	const set = `for pattern "%s" to "%s" with priority "%s" for vhost "%s" ...`
	return []verb{
		{name: "set_policy", args: "[--priority <n>] [--apply-to <apply-to>] <name> <pattern> <definition>", short: "Give arguments to queues and exchanges by name", least: 3, most: 3, options: options,
			banner: says(`Setting policy "%s" `+set, arg(0), arg(1), arg(2), priority, inVHost)},
		{name: "clear_policy", args: "<name>", short: "Remove a policy", least: 1, most: 1, banner: says(`Clearing policy "%s" on vhost "%s" ...`, arg(0), inVHost)},
		{name: "list_policies", short: "Policies of a vhost", columns: columns, banner: says(`Listing policies for vhost "%s" ...`, inVHost)},
		{name: "set_operator_policy", args: "[--priority <n>] [--apply-to <apply-to>] <name> <pattern> <definition>", short: "Cap what policies and arguments give", least: 3, most: 3, options: options,
			banner: says(`Setting operator policy override "%s" `+set, arg(0), arg(1), arg(2), priority, inVHost)},
		{name: "clear_operator_policy", args: "<name>", short: "Remove an operator policy", least: 1, most: 1, banner: says(`Clearing operator policy "%s" on vhost "%s" ...`, arg(0), inVHost)},
		{name: "list_operator_policies", short: "Operator policies of a vhost", columns: columns, banner: says(`Listing operator policy overrides for vhost "%s" ...`, inVHost)},
	}
}

func vhostVerbs() []verb {
	return []verb{
		{name: "add_vhost", args: "<vhost> [--description <text>] [--tags <tag>,...] [--default-queue-type <type>]", short: "Add a vhost", least: 1, most: 1,
			options: []string{"description", "tags", "default-queue-type"}, banner: says(`Adding vhost "%s" ...`, arg(0))},
		{name: "delete_vhost", args: "<vhost>", short: "Delete a vhost with all that is in it, and close its connections", least: 1, most: 1, banner: says(`Deleting vhost "%s" ...`, arg(0))},
		{name: "list_vhosts", args: "[<column> ...]", short: "Vhosts", most: -1, columns: []string{"name"}, known: vhostColumns(), banner: says("Listing vhosts ...")},
		{name: "trace_on", short: "Send copies of a vhost's messages to amq.rabbitmq.trace", banner: says(`Starting tracing for vhost "%s" ...`, inVHost)},
		{name: "trace_off", short: "Take that back", banner: says(`Stopping tracing for vhost "%s" ...`, inVHost)},
	}
}

func objectVerbs() []verb {
	return []verb{
		{name: "list_queues", args: "[<column> ...]", short: "Queues of a vhost", most: -1, columns: []string{"name", "messages"}, known: queueColumns(), banner: says("Listing queues for vhost %s ...", inVHost)},
		{name: "list_unresponsive_queues", args: "[--local] [--queue-timeout <seconds>] [<column> ...]", short: "Queues whose group has no leader that answers", most: -1,
			options: []string{"local", "queue-timeout"}, columns: []string{"name"}, known: unresponsiveColumns(), banner: says("Listing unresponsive queues for vhost %s ...", inVHost)},
		{name: "list_exchanges", args: "[<column> ...]", short: "Exchanges of a vhost", most: -1, columns: []string{"name", "type"}, known: exchangeColumns(), banner: says("Listing exchanges for vhost %s ...", inVHost)},
		{name: "list_bindings", args: "[<column> ...]", short: "Bindings of a vhost", most: -1, columns: bindingColumns()[:6], known: bindingColumns(), banner: says("Listing bindings for vhost %s...", inVHost)},
		{name: "list_connections", args: "[<column> ...]", short: "Clients' connections on all nodes", most: -1, columns: []string{"user", "peer_host", "peer_port", "state"}, known: connectionColumns(), banner: says("Listing connections ...")},
		{name: "list_channels", args: "[<column> ...]", short: "Clients' channels on all nodes", most: -1, columns: []string{"pid", "user", "consumer_count", "messages_unacknowledged"}, known: channelColumns(), banner: says("Listing channels ...")},
		{name: "list_consumers", args: "[<column> ...]", short: "Consumers in a vhost", most: -1, columns: consumerColumns(), known: consumerColumns(), banner: says("Listing consumers in vhost %s ...", inVHost)},
		{name: "close_connection", args: "<name> <reason>", short: "Close the connection that list_connections calls by that name", least: 2, most: 2, banner: says("Closing connection %s, reason: %s...", arg(0), arg(1))},
		{name: "close_all_connections", args: "[--global] [--limit <n>] [--per-connection-delay <ms>] <reason>", short: "Close the connections to a vhost, or all", least: 1, most: 1,
			options: []string{"global", "limit", "per-connection-delay"}, banner: func(c *ctlCall) string {
				if c.option("global") == "true" {
					return fmt.Sprintf("Closing all connections on all vhosts, reason: %s...", c.args[0])
				}
				return fmt.Sprintf("Closing all connections in vhost %s, reason: %s...", c.vhost(), c.args[0])
			}},
		{name: "close_all_user_connections", args: "<username> <reason>", short: "Close the connections of a user", least: 2, most: 2, options: []string{"limit", "per-connection-delay"},
			banner: says(`Closing connections of user "%s", reason: %s...`, arg(0), arg(1))},
		{name: "delete_queue", args: "[--if-empty] [--if-unused] <name>", short: "Delete a queue", least: 1, most: 1, options: []string{"if-empty", "if-unused"}, banner: says("Deleting queue '%s' on vhost '%s' ...", arg(0), inVHost)},
		{name: "purge_queue", args: "<name>", short: "Drop what is ready in a queue", least: 1, most: 1, banner: says("Purging queue '%s' in vhost '%s' ...", arg(0), inVHost)},
	}
}

// rabbitsOwn are commands of rabbitmqctl that there may be a script for, and
// that would not be unknown to who wrote it.
func rabbitsOwn() []string {
	return []string{
		"join_cluster", "forget_cluster_node", "stop_app", "start_app", "reset", "eval",
		"enable_feature_flag", "list_feature_flags",
		"restart_vhost", "update_vhost_metadata", "rotate_logs",
	}
}

func findVerb(name string) *verb {
	all := verbs()
	if at := slices.IndexFunc(all, func(v verb) bool { return v.name == name }); at >= 0 {
		return &all[at]
	}
	return nil
}

// usage refuses a command line.
func usage(path string, v *verb, format string, args ...any) error {
	line := path + " [--node <node>] [--quiet] <command> [<command options>]; '" + path + " help' lists the commands"
	if v != nil {
		line = strings.TrimSpace(path + " [--node <node>] [--quiet] " + v.name + " " + v.args)
	}
	return &exitError{code: management.ExitUsage, text: fmt.Sprintf(format, args...) + "\n\nUsage:\n\n  " + line}
}

// ctlHelp tells what there is, or what one verb is for.
func ctlHelp(path, name string, out io.Writer) error {
	flags := ctlFlags()
	var general strings.Builder
	flags.VisitAll(func(f *pflag.Flag) { f.Hidden = !slices.Contains(globalOptions(), f.Name) })
	general.WriteString(flags.FlagUsages())
	if v := findVerb(name); v != nil {
		_, err := fmt.Fprintf(out, "%s.\n\nUsage:\n\n  %s\n\nOptions:\n\n%s", v.short, strings.TrimSpace(path+" [options] "+v.name+" "+v.args), general.String())
		return err
	}
	fmt.Fprintf(out, "Look after a running cluster. The commands, their arguments and their exit codes are\nrabbitmqctl's.\n\nUsage:\n\n  %s [options] <command> [arguments]\n\nCommands:\n\n", path)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %s\t%s\n", v.name, v.short)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nOptions, before or after the command:\n\n%s", general.String())
	return err
}
