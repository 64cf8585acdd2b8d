package broker

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	"warren/mq"
)

// reservedPrefix begins the names that only the server may give
// (AMQP 0-9-1 §1.6.2.1.3 and §1.7.2.1.2).
const reservedPrefix = "amq."

func reserved(name string) bool { return strings.HasPrefix(name, reservedPrefix) }

// checkReserved refuses to make something with a reserved name.
func checkReserved(kind, name string) error {
	if !reserved(name) {
		return nil
	}
	return mq.Errorf(mq.AccessRefused, "%s name '%s' contains reserved prefix 'amq.*'", kind, name)
}

// checkNotDefault refuses to do anything to the default exchange but publish.
func checkNotDefault(exchange string) error {
	if exchange != "" {
		return nil
	}
	return mq.Errorf(mq.AccessRefused, "operation not permitted on the default exchange")
}

// clean removes line ends from a name, as RabbitMQ does before it looks at it.
func clean(name string) string {
	if !strings.ContainsAny(name, "\r\n") {
		return name
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(name)
}

// generatedName makes a name for a queue that a client leaves to the server.
func generatedName() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("no randomness: %v", err)) // crypto/rand never fails since Go 1.24
	}
	return "amq.gen-" + base64.RawURLEncoding.EncodeToString(b[:])
}
