package management

import "context"

// environment shows what the node goes by.
func (c *command) environment(context.Context) (r ControlReply, err error) {
	for _, s := range c.server.source.Environment() {
		r.Rows = append(r.Rows, Row{"key": s.Key, "value": s.Value})
	}
	return r, nil
}
