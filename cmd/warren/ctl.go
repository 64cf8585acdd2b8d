package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"warren/management"
)

const (
	// ctlTimeoutSeconds is how long a command may take if --timeout does not say.
	ctlTimeoutSeconds     = 60
	startupTimeoutSeconds = 300
	stopTimeoutSeconds    = 120
	passwordBytesMax      = 4 << 10 // of a password from the standard input
)

// exitError ends the process with a code of its own (sysexits.h, as
// rabbitmqctl has them) and a text that stands as it is.
type exitError struct {
	code int
	text string
	down bool // as no node is there
}

// Error is the text.
func (e *exitError) Error() string { return e.text }

func fail(code int, format string, args ...any) error {
	return &exitError{code: code, text: "Error:\n" + fmt.Sprintf(format, args...)}
}

// nobody is an error for want of a node to ask.
func nobody(format string, args ...any) error {
	return &exitError{code: management.ExitUnavailable, text: "Error:\n" + fmt.Sprintf(format, args...), down: true}
}

// ctlCommand takes the options of all its verbs anywhere among the arguments,
// as rabbitmqctl does, and so reads the command line by itself.
func ctlCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Look after a running cluster with rabbitmqctl's commands",
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		SilenceUsage:       true,
		SilenceErrors:      true,
		RunE: func(c *cobra.Command, args []string) error {
			return ctl(c.Context(), c.CommandPath(), args, c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// ctlCall is one command line of `ctl`.
type ctlCall struct {
	ctx   context.Context
	verb  *verb
	args  []string
	flags *pflag.FlagSet
	in    io.Reader
	out   io.Writer
}

func ctl(ctx context.Context, path string, words []string, in io.Reader, out io.Writer) error {
	flags := ctlFlags()
	if err := flags.Parse(words); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return ctlHelp(path, "", out)
		}
		return usage(path, nil, "Error (argument validation): %v", err)
	}
	args := flags.Args()
	if len(args) == 0 {
		return ctlHelp(path, "", out)
	}
	name, args := args[0], args[1:]
	if help, _ := flags.GetBool("help"); help || name == "help" {
		if name == "help" && len(args) > 0 {
			name = args[0]
		}
		return ctlHelp(path, name, out)
	}
	v := findVerb(name)
	if v == nil && slices.Contains(rabbitsOwn(), name) {
		return fail(management.ExitUnavailable, "Command '%s' is not implemented in this version.", name)
	}
	if v == nil {
		return usage(path, nil, "Command '%s' not found.", name)
	}
	c := &ctlCall{verb: v, args: args, flags: flags, in: in, out: out}
	if err := c.check(path); err != nil {
		return err
	}
	timeout, err := c.timeout(path)
	if err != nil {
		return err
	}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeout(ctx, timeout)
	defer cancel()
	return c.run()
}

// ctlFlags are the options of all verbs; verb.options says who takes which of
// the second part.
func ctlFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet("ctl", pflag.ContinueOnError)
	f.Usage = func() {}
	f.SortFlags = false
	f.StringP("node", "n", os.Getenv("WARREN_NODE"), "a node's `name`, or the address of its HTTP side (WARREN_NODE)")
	f.String("data-dir", os.Getenv("WARREN_DATA_DIR"), "`folder` of a node's data, or one that such folders are in (WARREN_DATA_DIR; default warren-data)")
	f.String("user", os.Getenv("WARREN_USER"), "`name` of an administrator, where the node's data folder is out of reach (WARREN_USER)")
	f.String("password", os.Getenv("WARREN_PASSWORD"), "the administrator's `password` (WARREN_PASSWORD)")
	f.StringP("vhost", "p", "/", "the `vhost` that the command is about")
	f.StringP("timeout", "t", "", fmt.Sprintf("`seconds` that the command may take (default %d)", ctlTimeoutSeconds))
	f.String("formatter", "table", "`form` of lists: table, pretty_table, json or csv")
	f.BoolP("quiet", "q", false, "say nothing but the answer")
	f.BoolP("silent", "s", false, "like --quiet, and no headers of tables")
	f.Bool("no-table-headers", false, "no headers of tables")
	f.BoolP("help", "h", false, "what there is, or what a command is for")

	f.String("apply-to", "", "")
	f.String("priority", "", "")
	f.String("description", "", "")
	f.String("tags", "", "")
	f.String("default-queue-type", "", "")
	f.Bool("pre-hashed-password", false, "")
	f.BoolP("if-empty", "e", false, "")
	f.BoolP("if-unused", "u", false, "")
	f.Bool("global", false, "")
	f.String("limit", "", "")
	f.String("per-connection-delay", "", "")
	f.Bool("local", false, "")
	f.Bool("idempotent", false, "")
	f.Bool("wait", false, "")
	f.Bool("no-wait", false, "")
	f.String("queue-timeout", "", "")
	f.Bool("json", false, "")
	f.Int("queues", 1000, "")
	return f
}

// globalOptions are those that every verb takes.
func globalOptions() []string {
	return []string{"node", "data-dir", "user", "password", "vhost", "timeout", "formatter", "quiet", "silent", "no-table-headers", "help"}
}

// check refuses a command line that rabbitmqctl would not take either.
func (c *ctlCall) check(path string) (err error) {
	c.flags.Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(globalOptions(), f.Name) && !slices.Contains(c.verb.options, f.Name) {
			err = usage(path, c.verb, "Error (argument validation): Invalid options for this command:\n--%s", f.Name)
		}
	})
	if err != nil {
		return err
	}
	if p, _ := c.flags.GetString("priority"); p != "" {
		if _, err := strconv.ParseInt(p, 10, 64); err != nil {
			return usage(path, c.verb, "Error (argument validation): Invalid options for this command:\n--priority : %s", p)
		}
	}
	if c.verb.name == "report" {
		if c.flags.Changed("formatter") && c.formatter() != "report" {
			return usage(path, c.verb, "Error (argument validation): Only report formatter is supported")
		}
	} else if !slices.Contains([]string{"table", "pretty_table", "json", "csv"}, c.formatter()) {
		return usage(path, c.verb, "Error (argument validation): there is no formatter '%s'", c.formatter())
	}
	if c.verb.password > 0 && len(c.args) == c.verb.password {
		if err := c.readPassword(); err != nil {
			return err
		}
	}
	switch n := len(c.args); {
	case n < c.verb.least:
		return usage(path, c.verb, "Error (argument validation): not enough arguments.")
	case c.verb.most >= 0 && n > c.verb.most:
		return usage(path, c.verb, "Error (argument validation): too many arguments.")
	}
	return c.checkColumns(path)
}

// checkColumns takes the arguments of a list, which name its columns.
func (c *ctlCall) checkColumns(path string) error {
	if c.verb.known == nil {
		return nil
	}
	c.args = strings.FieldsFunc(strings.Join(c.args, ","), func(r rune) bool { return r == ',' || r == ' ' })
	var unknown []string
	for _, a := range c.args {
		if !slices.Contains(c.verb.known, a) {
			unknown = append(unknown, a)
		}
	}
	if len(unknown) > 0 {
		return usage(path, c.verb, "Error (argument validation): Info key(s) %s are not supported", strings.Join(unknown, ","))
	}
	if len(c.args) == 0 {
		c.args = c.verb.columns
	}
	return nil
}

// readPassword takes the password that stands in no argument, where others on
// the machine could see it, from the standard input.
func (c *ctlCall) readPassword() error {
	line, err := bufio.NewReader(io.LimitReader(c.in, passwordBytesMax)).ReadString('\n')
	if line == "" && err != nil {
		return fail(management.ExitData, "Password is not provided via argument or stdin")
	}
	c.args = append(c.args, strings.TrimRight(line, "\r\n"))
	return nil
}

func (c *ctlCall) timeout(path string) (time.Duration, error) {
	given, _ := c.flags.GetString("timeout")
	seconds := ctlTimeoutSeconds
	switch {
	case given == "" && c.verb.name == "await_startup":
		seconds = startupTimeoutSeconds
	case given == "" && (c.verb.name == "stop" || c.verb.name == "shutdown"):
		seconds = stopTimeoutSeconds
	case given == "infinity":
		return 24 * time.Hour, nil
	case given != "":
		n, err := strconv.ParseUint(given, 10, 31)
		if err != nil || n == 0 {
			return 0, usage(path, c.verb, "Error (argument validation): Invalid options for this command:\n--timeout : %s", given)
		}
		seconds = int(n)
	}
	return time.Duration(seconds) * time.Second, nil
}

func (c *ctlCall) run() error {
	if c.verb.banner != nil && c.talks() && c.formatter() != "json" && c.formatter() != "csv" {
		fmt.Fprintln(c.out, c.verb.banner(c))
	}
	if c.verb.run != nil {
		return c.verb.run(c)
	}
	reply, err := c.command()
	if err != nil {
		return err
	}
	if c.verb.columns != nil && (reply.Message == "" || reply.Rows != nil) {
		columns := c.verb.columns
		if c.verb.known != nil {
			columns = c.args
		}
		return c.print(columns, reply.Rows)
	}
	if c.formatter() == "json" {
		b, err := json.Marshal(map[string]string{"result": "ok", "message": reply.Message})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", b)
		return err
	}
	if reply.Message != "" {
		fmt.Fprintln(c.out, reply.Message)
	}
	if c.verb.done != "" && c.talks() {
		fmt.Fprintln(c.out, c.verb.done)
	}
	return nil
}

// command has the node carry the verb out.
func (c *ctlCall) command() (reply management.ControlReply, err error) {
	req := management.ControlRequest{Verb: c.verb.name, Args: c.args, VHost: c.vhost(), Options: map[string]string{}}
	c.flags.Visit(func(f *pflag.Flag) {
		if slices.Contains(c.verb.options, f.Name) && f.Value.String() != "false" && !(f.Name == "user" && c.login() != "") {
			req.Options[f.Name] = f.Value.String()
		}
	})
	b, err := json.Marshal(req)
	if err != nil {
		return reply, err
	}
	body, err := c.ask(http.MethodPost, management.ControlPath, b)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return reply, fail(management.ExitSoftware, "the node's answer is malformed: %v", err)
	}
	return reply, nil
}

func (c *ctlCall) option(name string) string { return c.flags.Lookup(name).Value.String() }

// login is who logs in, "" if nobody has to: a verb may have an option of that
// name for something else.
func (c *ctlCall) login() string {
	if slices.Contains(c.verb.options, "user") && c.option("password") == "" {
		return ""
	}
	return c.option("user")
}

func (c *ctlCall) vhost() string     { return c.option("vhost") }
func (c *ctlCall) formatter() string { return c.option("formatter") }

// talks reports whether more may be said than the answer.
func (c *ctlCall) talks() bool { return c.option("quiet") == "false" && c.option("silent") == "false" }
