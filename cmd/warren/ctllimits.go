package main

import "fmt"

// limitVerbs are about limits and parameters, and definitionVerbs about
// definitions files.
func limitVerbs() []verb {
	return []verb{
		{name: "set_vhost_limits", args: "<definition>", short: "How many connections and queues a vhost may have", least: 1, most: 1,
			banner: says(`Setting vhost limits to "%s" for vhost "%s" ...`, arg(0), inVHost)},
		{name: "clear_vhost_limits", short: "Take that back", banner: says(`Clearing vhost "%s" limits ...`, inVHost)},
		{name: "list_vhost_limits", args: "[--global]", short: "The limits of a vhost, or of all", options: []string{"global"}, columns: []string{"vhost", "limits"}, banner: func(c *ctlCall) string {
			if c.option("global") == "true" {
				return "Listing limits for all vhosts ..."
			}
			return fmt.Sprintf(`Listing limits for vhost "%s" ...`, c.vhost())
		}},
		{name: "set_user_limits", args: "<username> <definition>", short: "How many connections and channels a user may have", least: 2, most: 2,
			banner: says(`Setting user limits to "%s" for user "%s" ...`, arg(1), arg(0))},
		{name: "clear_user_limits", args: "<username> <limit> | all", short: "Take that back", least: 2, most: 2, banner: func(c *ctlCall) string {
			if c.args[1] == "all" {
				return fmt.Sprintf(`Clearing all limits for user "%s" ...`, c.args[0])
			}
			return fmt.Sprintf(`Clearing "%s" limit for user "%s" ...`, c.args[1], c.args[0])
		}},
		{name: "list_user_limits", args: "[--user <username>]", short: "The limits of all users, or of one (who logs in by --user, needs --password)", options: []string{"user", "global"}, columns: []string{"user", "limits"}, banner: func(c *ctlCall) string {
			if user := c.option("user"); user != "" && c.login() == "" {
				return fmt.Sprintf(`Listing limits for user "%s" ...`, user)
			}
			return "Listing limits for all users ..."
		}},
		{name: "set_parameter", args: "<component> <name> <value>", short: "Set a parameter of a component: vhost-limits", least: 3, most: 3,
			banner: says(`Setting runtime parameter "%s" for component "%s" to "%s" in vhost "%s" ...`, arg(1), arg(0), arg(2), inVHost)},
		{name: "clear_parameter", args: "<component> <name>", short: "Take that back", least: 2, most: 2,
			banner: says(`Clearing runtime parameter "%s" for component "%s" on vhost "%s" ...`, arg(1), arg(0), inVHost)},
		{name: "list_parameters", short: "Parameters in a vhost", columns: []string{"component", "name", "value"}, banner: says(`Listing runtime parameters for vhost "%s" ...`, inVHost)},
		{name: "set_global_parameter", args: "<name> <value>", short: "Keep a value, in JSON, for the whole cluster", least: 2, most: 2,
			banner: says(`Setting global runtime parameter "%s" to "%s" ...`, arg(0), arg(1))},
		{name: "clear_global_parameter", args: "<name>", short: "Forget it", least: 1, most: 1, banner: says(`Clearing global runtime parameter "%s" ...`, arg(0))},
		{name: "list_global_parameters", short: "Global parameters", columns: []string{"name", "value"}, banner: says("Listing global runtime parameters ...")},
	}
}

func definitionVerbs() []verb {
	return []verb{
		{name: "export_definitions", args: "<path> | -", short: "Write users, vhosts, queues, ... to a file that RabbitMQ reads, too", least: 1, most: 1, banner: exporting, run: ctlExport},
		{name: "import_definitions", args: "[<path> | -]", short: "Make what a file of Warren's or RabbitMQ's has", most: 1, banner: importing, run: ctlImport},
		{name: "hash_password", args: "[<password>]", short: "A password as such files have it", most: 1, run: ctlHashPassword},
	}
}
