package management

import (
	"context"

	"warren/fsm/meta"
)

// mustHaveBoth refuses a permission for nobody or nowhere, in the order in
// which rabbitmqctl does.
func (c *command) mustHaveBoth(user string) error {
	if err := c.mustHaveVHost(); err != nil {
		return err
	}
	return c.mustHaveUser(user)
}

func (c *command) setPermissions(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveBoth(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.PermissionSet{User: c.arg(0), VHost: c.VHost, Configure: c.arg(1), Write: c.arg(2), Read: c.arg(3)})
}

func (c *command) clearPermissions(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.PermissionClear{User: c.arg(0), VHost: c.VHost})
}

func permissionRow(p *meta.Permission) Row {
	return Row{"user": p.User, "vhost": p.VHost, "configure": p.Configure, "write": p.Write, "read": p.Read}
}

func (c *command) listPermissions(context.Context) (r ControlReply, err error) {
	if err := c.mustHaveVHost(); err != nil {
		return r, err
	}
	for p := range c.view.Permissions() {
		if p.VHost == c.VHost {
			r.Rows = append(r.Rows, permissionRow(p))
		}
	}
	return r, nil
}

func (c *command) listUserPermissions(context.Context) (r ControlReply, err error) {
	if err := c.mustHaveUser(c.arg(0)); err != nil {
		return r, err
	}
	for p := range c.view.Permissions() {
		if p.User == c.arg(0) {
			r.Rows = append(r.Rows, permissionRow(p))
		}
	}
	return r, nil
}

func (c *command) setTopicPermissions(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveBoth(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.TopicPermissionSet{User: c.arg(0), VHost: c.VHost, Exchange: c.arg(1), Write: c.arg(2), Read: c.arg(3)})
}

func (c *command) clearTopicPermissions(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveBoth(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.TopicPermissionClear{User: c.arg(0), VHost: c.VHost, Exchange: c.arg(1), All: len(c.Args) == 1})
}

func topicPermissionRow(p *meta.TopicPermission) Row {
	return Row{"user": p.User, "vhost": p.VHost, "exchange": p.Exchange, "write": p.Write, "read": p.Read}
}

func (c *command) listTopicPermissions(context.Context) (r ControlReply, err error) {
	if err := c.mustHaveVHost(); err != nil {
		return r, err
	}
	for p := range c.view.TopicPermissions() {
		if p.VHost == c.VHost {
			r.Rows = append(r.Rows, topicPermissionRow(p))
		}
	}
	return r, nil
}

func (c *command) listUserTopicPermissions(context.Context) (r ControlReply, err error) {
	if err := c.mustHaveUser(c.arg(0)); err != nil {
		return r, err
	}
	for p := range c.view.TopicPermissions() {
		if p.User == c.arg(0) {
			r.Rows = append(r.Rows, topicPermissionRow(p))
		}
	}
	return r, nil
}
