package management

import (
	"context"
	"strconv"
)

// setMemory is set_vm_memory_high_watermark: a share of the memory, or
// "absolute" and a size.
func (c *command) setMemory(context.Context) (ControlReply, error) {
	if c.arg(0) == "absolute" {
		bytes, err := ParseSize(c.arg(1))
		if err != nil || bytes == 0 {
			return ControlReply{}, refused(ExitData, "'%s' is not a size in bytes, like 2147483648, 2GiB or 2GB", c.arg(1))
		}
		return ControlReply{}, c.server.source.SetMemoryHighWatermark(0, bytes)
	}
	share, err := strconv.ParseFloat(c.arg(0), 64)
	if err != nil || len(c.Args) > 1 || !(share >= 0 && share <= 1) {
		return ControlReply{}, refused(ExitUsage, "The threshold should be an integer or a float between 0 and 1, or 'absolute' and a size")
	}
	return ControlReply{}, c.server.source.SetMemoryHighWatermark(share, 0)
}

// setDiskFree is set_disk_free_limit: a size.
func (c *command) setDiskFree(context.Context) (ControlReply, error) {
	bytes, err := ParseSize(c.arg(0))
	if err != nil {
		return ControlReply{}, refused(ExitData, "'%s' is not a size in bytes, like 2147483648, 2GiB or 2GB", c.arg(0))
	}
	c.server.source.SetDiskFreeLimit(bytes)
	return ControlReply{}, nil
}
