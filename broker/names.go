package broker

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

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

// namePrefix is the argument by which a client chooses how the name begins that
// the server gives its queue (RabbitMQ 4.3). It is not one of the queue's
// arguments, and means nothing for a queue that has a name.
const namePrefix = "x-name-prefix"

const (
	generatedPrefix    = "amq.gen"
	namePrefixBytesMax = 64
)

// generatedName makes a name for a queue that a client leaves to the server.
func generatedName(args mq.Table) (string, error) {
	prefix, _ := args.String(namePrefix)
	switch {
	case len(prefix) > namePrefixBytesMax:
		return "", mq.Errorf(mq.PreconditionFailed, "invalid arg '%s': %d bytes long, the limit is %d", namePrefix, len(prefix), namePrefixBytesMax)
	case !utf8.ValidString(prefix): // nobody could say the name in a method
		return "", mq.Errorf(mq.PreconditionFailed, "invalid arg '%s': not UTF-8", namePrefix)
	}
	if prefix = clean(prefix); prefix == "" {
		prefix = generatedPrefix
	}
	if prefix != generatedPrefix {
		if err := checkReserved("queue", prefix); err != nil {
			return "", err
		}
	}
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("no randomness: %v", err)) // crypto/rand never fails since Go 1.24
	}
	return prefix + "-" + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// withoutNamePrefix are the arguments that a queue is made with.
func withoutNamePrefix(args mq.Table) mq.Table {
	if _, ok := args.Get(namePrefix); !ok {
		return args
	}
	return slices.DeleteFunc(slices.Clone(args), func(f mq.Field) bool { return f.Key == namePrefix })
}
