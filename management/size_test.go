package management

import "testing"

func TestSizesHaveRabbitMQsUnits(t *testing.T) {
	for v, want := range map[string]uint64{
		"0": 0, "50000000": 50e6, "2GB": 2e9, "2 GiB": 2 << 30, "2g": 2 << 30, "100M": 100 << 20, "100mb": 100e6, "7kB": 7000, "7KiB": 7 << 10, "1TiB": 1 << 40,
	} {
		if got, err := ParseSize(v); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", v, got, err, want)
		}
	}
	for _, v := range []string{"", "x", "GB", "-1", "1.5G", "99999999999TiB", "1 XB"} {
		if got, err := ParseSize(v); err == nil {
			t.Errorf("%q is %d", v, got)
		}
	}
}
