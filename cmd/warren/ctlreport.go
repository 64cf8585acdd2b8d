package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"warren/management"
)

// Parts of a report, in rabbitmqctl's order: those about the cluster, and those
// that each vhost has.
func reportParts() []string {
	return []string{"status", "cluster_status", "environment", "list_connections", "list_channels", "list_global_parameters"}
}

func reportVHostParts() []string {
	return []string{"list_queues", "list_exchanges", "list_bindings", "list_permissions", "list_policies", "list_parameters"}
}

// ctlReport prints what many other verbs print, with all their columns, for
// somebody who has to find out what is wrong. So a part that fails leaves its
// error in its place.
func ctlReport(c *ctlCall) error {
	for _, name := range reportParts() {
		if err := c.reportPart(name, c.vhost()); err != nil {
			return err
		}
	}
	reply, err := c.part("list_vhosts", c.vhost()).command()
	if err != nil {
		return err
	}
	for _, r := range reply.Rows {
		vhost, _ := r["name"].(string)
		for _, name := range reportVHostParts() {
			if err := c.reportPart(name, vhost); err != nil {
				return err
			}
		}
	}
	return nil
}

// reportPart prints one part; it fails only if nothing more can be asked.
func (c *ctlCall) reportPart(name, vhost string) error {
	if _, err := fmt.Fprintln(c.out); err != nil {
		return err
	}
	err := c.part(name, vhost).run()
	var said *exitError
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return fail(management.ExitUnavailable, "the report was not complete in time (--timeout)")
	case errors.As(err, &said):
		_, err = fmt.Fprintln(c.out, said.text)
		return err
	}
	_, err = fmt.Fprintf(c.out, "Error:\n%v\n", err)
	return err
}

// part is a command line of another verb, with all columns and this one's
// global options but for the form: a report has one of its own.
func (c *ctlCall) part(name, vhost string) *ctlCall {
	v, flags := findVerb(name), ctlFlags()
	set := func(name, value string) {
		if err := flags.Set(name, value); err != nil {
			panic(fmt.Sprintf("option %s %q: %v", name, value, err)) // it has been parsed once
		}
	}
	c.flags.Visit(func(f *pflag.Flag) {
		if f.Name != "formatter" {
			set(f.Name, f.Value.String())
		}
	})
	set("vhost", vhost)
	return &ctlCall{ctx: c.ctx, verb: v, args: v.known, flags: flags, in: c.in, out: c.out}
}
