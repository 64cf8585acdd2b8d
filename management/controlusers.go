package management

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"warren/fsm/meta"
	"warren/mq"
)

// HashPassword is a password as definition files have it.
func HashPassword(password string) (string, error) { return hash(password) }

// hash is a password as the metadata keeps it. Nobody can log in with an empty
// one.
func hash(password string) (string, error) {
	if password == "" {
		return "", nil
	}
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return "", err
	}
	return meta.HashPassword(salt, password), nil
}

// mustHaveUser and mustHaveVHost refuse a command about what is not there.
func (c *command) mustHaveUser(name string) error {
	if c.view.User(name) == nil {
		return refused(ExitNoUser, "User \"%s\" does not exist", name)
	}
	return nil
}

func (c *command) mustHaveVHost() error {
	if c.view.VHost(c.VHost) == nil {
		return refused(ExitData, "Virtual host '%s' does not exist", c.VHost)
	}
	return nil
}

func (c *command) addUser(ctx context.Context) (ControlReply, error) {
	if c.view.User(c.arg(0)) != nil {
		return ControlReply{}, refused(ExitSoftware, "User \"%s\" already exists", c.arg(0))
	}
	hashed, err := c.arg(1), error(nil)
	if c.Options["pre-hashed-password"] == "" {
		hashed, err = hash(c.arg(1))
	}
	if err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.UserAdd{Name: c.arg(0), PasswordHash: hashed})
}

func (c *command) deleteUser(ctx context.Context) (ControlReply, error) {
	return c.change(ctx, meta.UserDelete{Name: c.arg(0)})
}

func (c *command) changePassword(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveUser(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	hashed, err := hash(c.arg(1))
	if err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.UserPassword{Name: c.arg(0), PasswordHash: hashed})
}

func (c *command) clearPassword(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveUser(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.UserPassword{Name: c.arg(0)})
}

func (c *command) authenticateUser(ctx context.Context) (ControlReply, error) {
	const here = true // the operator is, wherever the user will come from
	_, err := c.server.source.Login(ctx, c.arg(0), c.arg(1), here)
	var e *mq.Error
	if errors.As(err, &e) && e.Code == mq.AccessRefused {
		return ControlReply{}, refused(ExitData, "Error: failed to authenticate user \"%s\"\nuser '%s' - invalid credentials", c.arg(0), c.arg(0))
	}
	return ControlReply{Message: "Success"}, err
}

func (c *command) setUserTags(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveUser(c.arg(0)); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.UserTags{Name: c.arg(0), Tags: c.Args[1:]})
}

func (c *command) listUsers(context.Context) (r ControlReply, err error) {
	for u := range c.view.Users() {
		r.Rows = append(r.Rows, Row{"user": u.Name, "tags": listed(u.Tags)})
	}
	return r, nil
}

// listed is a list that is not null when it is empty.
func listed(s []string) []string { return append([]string{}, s...) }

func (c *command) addVHost(ctx context.Context) (ControlReply, error) {
	if c.view.VHost(c.arg(0)) != nil {
		return ControlReply{}, nil // as RabbitMQ has it
	}
	kind := c.Options["default-queue-type"]
	if !slices.Contains([]string{"", "classic", "quorum"}, kind) {
		return ControlReply{}, refused(ExitUsage, "Unsupported queue type: %s", kind)
	}
	return c.change(ctx, meta.VHostPut{Name: c.arg(0), Description: c.Options["description"], Tags: commas(c.Options["tags"]), DefaultQueueType: kind})
}

func (c *command) deleteVHost(ctx context.Context) (ControlReply, error) {
	c.VHost = c.arg(0)
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	return c.change(ctx, meta.VHostDelete{Name: c.VHost})
}

func (c *command) listVHosts(context.Context) (r ControlReply, err error) {
	for v := range c.view.VHosts() {
		r.Rows = append(r.Rows, Row{
			"name": v.Name, "description": v.Description, "tags": listed(v.Tags), "default_queue_type": v.DefaultQueueType,
			"tracing": c.view.Tracing(v.Name),
		})
	}
	return r, nil
}

func (c *command) trace(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	on, word := c.Verb == "trace_on", "disabled"
	if on {
		word = "enabled"
	}
	_, err := c.server.source.Administer(ctx, meta.TracingSet{VHost: c.VHost, On: on})
	return ControlReply{Message: fmt.Sprintf("Trace %s for vhost %s", word, c.VHost)}, err
}
