package management

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"warren/fsm/meta"
)

// The limits that vhosts and users can have, and the component and name under
// which rabbitmqctl has a vhost's among its parameters.
const (
	limitsComponent = "vhost-limits"
	limitsName      = "limits"
)

func vhostLimitNames() []string { return []string{"max-connections", "max-queues"} }
func userLimitNames() []string  { return []string{"max-connections", "max-channels"} }

// parseLimits reads and checks limits: a JSON object of whole numbers, of which
// a negative one is no limit.
func parseLimits(text string, known []string) (map[string]int64, error) {
	var given map[string]any
	if err := json.Unmarshal([]byte(text), &given); err != nil {
		return nil, refused(ExitUnavailable, "Could not parse JSON document: %v", err)
	}
	out := map[string]int64{}
	for name, v := range given {
		if !slices.Contains(known, name) {
			return nil, refused(ExitUnavailable, "Validation failed\n\nUnrecognised terms [{<<\"%s\">>,%v}] in limits\n", name, v)
		}
		n, ok := v.(float64)
		if !ok || n != math.Trunc(n) || math.Abs(n) > math.MaxInt32 {
			return nil, refused(ExitUnavailable, "Validation failed\n\n<<\"%s\">> should be a number, actually was %v\n", name, v)
		}
		out[name] = int64(n)
	}
	return out, nil
}

// putLimits is the operation that sets limits.
func putLimits(setting string, limits map[string]int64) (meta.SettingPut, error) {
	b, err := json.Marshal(limits)
	return meta.SettingPut{Name: setting, Value: string(b)}, err
}

// setLimits is set_vhost_limits and set_user_limits. What a user has and the
// new ones do not name stays; a vhost's are replaced, as RabbitMQ has both.
func (c *command) setLimits(ctx context.Context) (ControlReply, error) {
	user := c.Verb == "set_user_limits"
	if len(c.Args) != 1 && !user || len(c.Args) != 2 && user {
		return ControlReply{}, refused(ExitUsage, "%s does not take %d arguments", c.Verb, len(c.Args))
	}
	setting, known, text := meta.VHostLimits(c.VHost), vhostLimitNames(), c.arg(0)
	err := c.mustHaveVHost()
	if user {
		setting, known, text = meta.UserLimits(c.arg(0)), userLimitNames(), c.arg(1)
		err = c.mustHaveUser(c.arg(0))
	}
	if err != nil {
		return ControlReply{}, err
	}
	limits, err := parseLimits(text, known)
	if err != nil {
		return ControlReply{}, err
	}
	if user {
		for name, n := range c.limits(setting) {
			if _, given := limits[name]; !given {
				limits[name] = n
			}
		}
	}
	op, err := putLimits(setting, limits)
	if err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, op)
}

// limits are those that are set.
func (c *command) limits(setting string) (out map[string]int64) {
	text, _ := c.view.Setting(setting)
	if json.Unmarshal([]byte(text), &out) != nil {
		return nil
	}
	return out
}

// clearLimits is clear_vhost_limits, and clear_user_limits with the name of a
// limit or "all".
func (c *command) clearLimits(ctx context.Context) (ControlReply, error) {
	if c.Verb == "clear_vhost_limits" {
		if len(c.Args) != 0 {
			return ControlReply{}, refused(ExitUsage, "%s does not take %d arguments", c.Verb, len(c.Args))
		}
		if err := c.mustHaveVHost(); err != nil {
			return ControlReply{}, err
		}
		was, err := c.server.source.Administer(ctx, meta.SettingDelete{Name: meta.VHostLimits(c.VHost)})
		if err == nil && !was {
			err = refused(ExitUnavailable, "Parameter does not exist")
		}
		return ControlReply{}, err
	}
	if len(c.Args) != 2 {
		return ControlReply{}, refused(ExitUsage, "%s does not take %d arguments", c.Verb, len(c.Args))
	}
	if err := c.mustHaveUser(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	setting := meta.UserLimits(c.arg(0))
	left := c.limits(setting)
	delete(left, c.arg(1))
	if c.arg(1) == "all" || len(left) == 0 {
		return c.change(ctx, meta.SettingDelete{Name: setting})
	}
	op, err := putLimits(setting, left)
	if err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, op)
}

// listVHostLimits lists a vhost's limits, or with the option global those of all
// vhosts.
func (c *command) listVHostLimits(context.Context) (r ControlReply, err error) {
	global := c.Options["global"] != ""
	if !global {
		if err := c.mustHaveVHost(); err != nil {
			return r, err
		}
	}
	for v := range c.view.VHosts() {
		text, ok := c.view.Setting(meta.VHostLimits(v.Name))
		if ok && (global || v.Name == c.VHost) {
			r.Rows = append(r.Rows, Row{"vhost": v.Name, "limits": text})
		}
	}
	if !global && len(r.Rows) > 0 { // only the limits, as rabbitmqctl shows them
		return ControlReply{Message: fmt.Sprint(r.Rows[0]["limits"])}, nil
	}
	return r, nil
}

// listUserLimits lists a user's limits, or with the option global those of all.
func (c *command) listUserLimits(context.Context) (r ControlReply, err error) {
	user := c.Options["user"]
	if user != "" {
		if err := c.mustHaveUser(user); err != nil {
			return r, err
		}
	}
	for u := range c.view.Users() {
		text, ok := c.view.Setting(meta.UserLimits(u.Name))
		if ok && (user == "" || u.Name == user) {
			r.Rows = append(r.Rows, Row{"user": u.Name, "limits": text})
		}
	}
	if user != "" && len(r.Rows) > 0 {
		return ControlReply{Message: fmt.Sprint(r.Rows[0]["limits"])}, nil
	}
	return r, nil
}

// setGlobalParameter sets a value that tools keep for the whole cluster.
func (c *command) setGlobalParameter(ctx context.Context) (ControlReply, error) {
	if !json.Valid([]byte(c.arg(1))) {
		return ControlReply{}, refused(ExitUnavailable, "Could not parse JSON document: %s", c.arg(1))
	}
	return c.change(ctx, meta.SettingPut{Name: meta.GlobalParameter(c.arg(0)), Value: c.arg(1)})
}

func (c *command) clearGlobalParameter(ctx context.Context) (ControlReply, error) {
	was, err := c.server.source.Administer(ctx, meta.SettingDelete{Name: meta.GlobalParameter(c.arg(0))})
	if err == nil && !was {
		err = refused(ExitUnavailable, "Parameter does not exist")
	}
	return ControlReply{}, err
}

func (c *command) listGlobalParameters(context.Context) (r ControlReply, err error) {
	for s := range c.view.Settings() {
		if name, ok := meta.GlobalParameterName(s.Name); ok {
			r.Rows = append(r.Rows, Row{"name": name, "value": s.Value})
		}
	}
	return r, nil
}

// setParameter sets a parameter of a component, of which there is one: the
// limits of vhosts.
func (c *command) setParameter(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	if c.arg(0) != limitsComponent {
		return ControlReply{}, refused(ExitUnavailable, "Validation failed\n\ncomponent %s not found\n", c.arg(0))
	}
	if c.arg(1) != limitsName {
		return ControlReply{}, refused(ExitUnavailable, "Validation failed\n\nname not recognised: %s\n", c.arg(1))
	}
	limits, err := parseLimits(c.arg(2), vhostLimitNames())
	if err != nil {
		return ControlReply{}, err
	}
	op, err := putLimits(meta.VHostLimits(c.VHost), limits)
	if err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, op)
}

func (c *command) clearParameter(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	if c.arg(0) != limitsComponent {
		return ControlReply{}, refused(ExitUnavailable, "component %s not found", c.arg(0))
	}
	was := false
	var err error
	if c.arg(1) == limitsName {
		was, err = c.server.source.Administer(ctx, meta.SettingDelete{Name: meta.VHostLimits(c.VHost)})
	}
	if err == nil && !was {
		err = refused(ExitUnavailable, "Parameter does not exist")
	}
	return ControlReply{}, err
}

func (c *command) listParameters(context.Context) (r ControlReply, err error) {
	if err := c.mustHaveVHost(); err != nil {
		return r, err
	}
	if text, ok := c.view.Setting(meta.VHostLimits(c.VHost)); ok {
		r.Rows = append(r.Rows, Row{"component": limitsComponent, "name": limitsName, "value": text})
	}
	return r, nil
}
