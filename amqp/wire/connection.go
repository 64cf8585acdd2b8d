package wire

import "warren/mq"

// ConnectionStart offers mechanisms and locales, each list separated by spaces.
type ConnectionStart struct {
	VersionMajor, VersionMinor uint8
	ServerProperties           mq.Table
	Mechanisms, Locales        string
}

// ID is 10, 10.
func (ConnectionStart) ID() (class, method uint16) { return 10, 10 }

// Name is connection.start.
func (ConnectionStart) Name() string { return "connection.start" }

func (m *ConnectionStart) decode(d *decoder) {
	m.VersionMajor = d.octet()
	m.VersionMinor = d.octet()
	m.ServerProperties = d.table()
	m.Mechanisms = d.longstr()
	m.Locales = d.longstr()
}

func (m ConnectionStart) append(dst []byte) []byte {
	dst = append(dst, m.VersionMajor)
	dst = append(dst, m.VersionMinor)
	dst = AppendTable(dst, m.ServerProperties)
	dst = appendLongstr(dst, m.Mechanisms)
	return appendLongstr(dst, m.Locales)
}

// ConnectionStartOk answers connection.start with the first SASL response.
type ConnectionStartOk struct {
	ClientProperties            mq.Table
	Mechanism, Response, Locale string
}

// ID is 10, 11.
func (ConnectionStartOk) ID() (class, method uint16) { return 10, 11 }

// Name is connection.start-ok.
func (ConnectionStartOk) Name() string { return "connection.start-ok" }

func (m *ConnectionStartOk) decode(d *decoder) {
	m.ClientProperties = d.table()
	m.Mechanism = d.shortstr()
	m.Response = d.longstr()
	m.Locale = d.shortstr()
}

func (m ConnectionStartOk) append(dst []byte) []byte {
	dst = AppendTable(dst, m.ClientProperties)
	dst = appendShortstr(dst, m.Mechanism)
	dst = appendLongstr(dst, m.Response)
	return appendShortstr(dst, m.Locale)
}

// ConnectionSecure asks for one more SASL response.
type ConnectionSecure struct {
	Challenge string
}

// ID is 10, 20.
func (ConnectionSecure) ID() (class, method uint16) { return 10, 20 }

// Name is connection.secure.
func (ConnectionSecure) Name() string { return "connection.secure" }

func (m *ConnectionSecure) decode(d *decoder) {
	m.Challenge = d.longstr()
}

func (m ConnectionSecure) append(dst []byte) []byte {
	return appendLongstr(dst, m.Challenge)
}

// ConnectionSecureOk answers connection.secure.
type ConnectionSecureOk struct {
	Response string
}

// ID is 10, 21.
func (ConnectionSecureOk) ID() (class, method uint16) { return 10, 21 }

// Name is connection.secure-ok.
func (ConnectionSecureOk) Name() string { return "connection.secure-ok" }

func (m *ConnectionSecureOk) decode(d *decoder) {
	m.Response = d.longstr()
}

func (m ConnectionSecureOk) append(dst []byte) []byte {
	return appendLongstr(dst, m.Response)
}

// ConnectionTune proposes limits; Heartbeat is in seconds.
type ConnectionTune struct {
	ChannelMax uint16
	FrameMax   uint32
	Heartbeat  uint16
}

// ID is 10, 30.
func (ConnectionTune) ID() (class, method uint16) { return 10, 30 }

// Name is connection.tune.
func (ConnectionTune) Name() string { return "connection.tune" }

func (m *ConnectionTune) decode(d *decoder) {
	m.ChannelMax = d.short()
	m.FrameMax = d.long()
	m.Heartbeat = d.short()
}

func (m ConnectionTune) append(dst []byte) []byte {
	dst = appendShort(dst, m.ChannelMax)
	dst = appendLong(dst, m.FrameMax)
	return appendShort(dst, m.Heartbeat)
}

// ConnectionTuneOk settles the limits; 0 asks for none.
type ConnectionTuneOk struct {
	ChannelMax uint16
	FrameMax   uint32
	Heartbeat  uint16
}

// ID is 10, 31.
func (ConnectionTuneOk) ID() (class, method uint16) { return 10, 31 }

// Name is connection.tune-ok.
func (ConnectionTuneOk) Name() string { return "connection.tune-ok" }

func (m *ConnectionTuneOk) decode(d *decoder) {
	m.ChannelMax = d.short()
	m.FrameMax = d.long()
	m.Heartbeat = d.short()
}

func (m ConnectionTuneOk) append(dst []byte) []byte {
	dst = appendShort(dst, m.ChannelMax)
	dst = appendLong(dst, m.FrameMax)
	return appendShort(dst, m.Heartbeat)
}

// ConnectionOpen opens a virtual host.
type ConnectionOpen struct {
	VirtualHost string
}

// ID is 10, 40.
func (ConnectionOpen) ID() (class, method uint16) { return 10, 40 }

// Name is connection.open.
func (ConnectionOpen) Name() string { return "connection.open" }

func (m *ConnectionOpen) decode(d *decoder) {
	m.VirtualHost = d.shortstr()
	d.shortBytes() // reserved
	d.octet()      // reserved
}

func (m ConnectionOpen) append(dst []byte) []byte {
	dst = appendShortstr(dst, m.VirtualHost)
	dst = append(dst, 0)  // reserved
	return append(dst, 0) // reserved
}

// ConnectionOpenOk answers connection.open.
type ConnectionOpenOk struct{}

// ID is 10, 41.
func (ConnectionOpenOk) ID() (class, method uint16) { return 10, 41 }

// Name is connection.open-ok.
func (ConnectionOpenOk) Name() string { return "connection.open-ok" }

func (*ConnectionOpenOk) decode(d *decoder) {
	d.shortBytes() // reserved
}

func (ConnectionOpenOk) append(dst []byte) []byte {
	return append(dst, 0) // reserved
}

// ConnectionClose ends the connection; ClassID and MethodID name the offender, if any.
type ConnectionClose struct {
	ReplyCode         mq.Code
	ReplyText         string
	ClassID, MethodID uint16
}

// ID is 10, 50.
func (ConnectionClose) ID() (class, method uint16) { return 10, 50 }

// Name is connection.close.
func (ConnectionClose) Name() string { return "connection.close" }

func (m *ConnectionClose) decode(d *decoder) {
	m.ReplyCode = mq.Code(d.short())
	m.ReplyText = d.shortstr()
	m.ClassID = d.short()
	m.MethodID = d.short()
}

func (m ConnectionClose) append(dst []byte) []byte {
	dst = appendShort(dst, uint16(m.ReplyCode))
	dst = appendShortstr(dst, m.ReplyText)
	dst = appendShort(dst, m.ClassID)
	return appendShort(dst, m.MethodID)
}

// ConnectionCloseOk answers connection.close.
type ConnectionCloseOk struct{}

// ID is 10, 51.
func (ConnectionCloseOk) ID() (class, method uint16) { return 10, 51 }

// Name is connection.close-ok.
func (ConnectionCloseOk) Name() string { return "connection.close-ok" }

func (*ConnectionCloseOk) decode(*decoder) {}

func (ConnectionCloseOk) append(dst []byte) []byte { return dst }

// ConnectionBlocked tells a publisher that it is held back (RabbitMQ).
type ConnectionBlocked struct {
	Reason string
}

// ID is 10, 60.
func (ConnectionBlocked) ID() (class, method uint16) { return 10, 60 }

// Name is connection.blocked.
func (ConnectionBlocked) Name() string { return "connection.blocked" }

func (m *ConnectionBlocked) decode(d *decoder) {
	m.Reason = d.shortstr()
}

func (m ConnectionBlocked) append(dst []byte) []byte {
	return appendShortstr(dst, m.Reason)
}

// ConnectionUnblocked takes connection.blocked back (RabbitMQ).
type ConnectionUnblocked struct{}

// ID is 10, 61.
func (ConnectionUnblocked) ID() (class, method uint16) { return 10, 61 }

// Name is connection.unblocked.
func (ConnectionUnblocked) Name() string { return "connection.unblocked" }

func (*ConnectionUnblocked) decode(*decoder) {}

func (ConnectionUnblocked) append(dst []byte) []byte { return dst }

// ConnectionUpdateSecret replaces the credentials of a live connection (RabbitMQ).
type ConnectionUpdateSecret struct {
	NewSecret, Reason string
}

// ID is 10, 70.
func (ConnectionUpdateSecret) ID() (class, method uint16) { return 10, 70 }

// Name is connection.update-secret.
func (ConnectionUpdateSecret) Name() string { return "connection.update-secret" }

func (m *ConnectionUpdateSecret) decode(d *decoder) {
	m.NewSecret = d.longstr()
	m.Reason = d.shortstr()
}

func (m ConnectionUpdateSecret) append(dst []byte) []byte {
	dst = appendLongstr(dst, m.NewSecret)
	return appendShortstr(dst, m.Reason)
}

// ConnectionUpdateSecretOk answers connection.update-secret (RabbitMQ).
type ConnectionUpdateSecretOk struct{}

// ID is 10, 71.
func (ConnectionUpdateSecretOk) ID() (class, method uint16) { return 10, 71 }

// Name is connection.update-secret-ok.
func (ConnectionUpdateSecretOk) Name() string { return "connection.update-secret-ok" }

func (*ConnectionUpdateSecretOk) decode(*decoder) {}

func (ConnectionUpdateSecretOk) append(dst []byte) []byte { return dst }
