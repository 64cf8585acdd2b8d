package management

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeUnits are those of RabbitMQ's files: k, M, G alone and with iB are powers
// of 1024, with B powers of 1000.
var sizeUnits = []struct {
	name  string
	bytes uint64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
}

// ParseSize reads a number of bytes as RabbitMQ's files and commands have it,
// with a unit or without.
func ParseSize(v string) (uint64, error) {
	number, unit := strings.ToLower(strings.TrimSpace(v)), uint64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size in bytes, like 2147483648, 2GiB or 2GB", v)
	}
	return n * unit, nil
}
