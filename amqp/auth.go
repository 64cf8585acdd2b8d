package amqp

import (
	"encoding/binary"
	"strings"

	"warren/amqp/wire"
	"warren/mq"
)

// mechanisms are what connection.start offers.
const mechanisms = "PLAIN AMQPLAIN"

// credentials takes a SASL response apart.
func credentials(mechanism, response string) (mq.Credentials, error) {
	creds := mq.Credentials{Mechanism: mechanism}
	ok := false
	switch mechanism {
	case "PLAIN": // RFC 4616: [authzid] NUL user NUL password; authzid is not looked at
		parts := strings.Split(response, "\x00")
		if ok = len(parts) == 3; ok {
			creds.User, creds.Password = parts[1], parts[2]
		}
	case "AMQPLAIN": // a field table without its length
		b := binary.BigEndian.AppendUint32(nil, uint32(len(response)))
		t, _, err := wire.ParseTable(append(b, response...))
		if err != nil {
			break
		}
		var hasUser, hasPassword bool
		creds.User, hasUser = octets(t, "LOGIN")
		creds.Password, hasPassword = octets(t, "PASSWORD")
		ok = hasUser && hasPassword
	default:
		return creds, mq.Errorf(mq.CommandInvalid, "unknown authentication mechanism '%s'", mechanism)
	}
	if !ok { // the response is not quoted: it may hold a password
		return creds, mq.Errorf(mq.SyntaxError, "invalid %s response", mechanism)
	}
	return creds, nil
}

// octets is a string or a byte array ('x') of a table: some clients write
// their strings so.
func octets(t mq.Table, key string) (string, bool) {
	switch v, _ := t.Get(key); v := v.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	}
	return "", false
}
