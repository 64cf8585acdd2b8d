// Package conform says what a client may expect of a broker of AMQP 0-9-1 with
// RabbitMQ's extensions, one test for each behaviour, and runs the tests that
// others wrote for RabbitMQ. It knows the harness, and nothing inside a node.
//
// The behaviours are tested on the broker whose addresses CONFORM_AMQP holds
// (several, separated by commas, are nodes of one cluster: connections then go
// round robin, so that producers and consumers are on different nodes), or on a
// cluster of three Warren nodes. What RabbitMQ does was not looked up but tried
// out: the same tests pass on RabbitMQ 4.3, see `make conform-rabbitmq`.
package conform

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

const (
	// addressEnv has the AMQP addresses of the broker under test.
	addressEnv = "CONFORM_AMQP"
	// productEnv has the name by which that broker calls itself.
	productEnv = "CONFORM_PRODUCT"
	// together is how many tests run at once: they wait much and work little.
	together = "24"
)

func TestMain(m *testing.M) { os.Exit(harness.MainWith(suite{m}, 3, addressEnv)) }

// suite is all tests of the package.
type suite struct{ m *testing.M }

// Run runs the tests once it is known what they run against.
func (s suite) Run() int {
	if !testing.Short() && os.Getenv(addressEnv) != "" {
		product, err := productAt(addresses()[0])
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s=%s: %v\n", addressEnv, os.Getenv(addressEnv), err)
			return 1
		}
		os.Setenv(productEnv, product)
	}
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		if err := flag.Set("test.parallel", together); err != nil {
			panic(err) // the testing package has no such flag any more
		}
	}
	return s.m.Run()
}

// addresses are the nodes under test.
func addresses() []string {
	all := strings.Split(os.Getenv(addressEnv), ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// productAt is what the broker at an address calls itself.
func productAt(address string) (string, error) {
	conn, err := amqp.Dial(address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	product, _ := conn.Properties["product"].(string)
	return cmp.Or(product, "a broker without a name"), nil
}
