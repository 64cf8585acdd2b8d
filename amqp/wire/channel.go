package wire

import "warren/mq"

// ChannelOpen opens a channel.
type ChannelOpen struct{}

// ID is 20, 10.
func (ChannelOpen) ID() (class, method uint16) { return 20, 10 }

// Name is channel.open.
func (ChannelOpen) Name() string { return "channel.open" }

func (*ChannelOpen) decode(d *decoder) {
	d.shortBytes() // reserved
}

func (ChannelOpen) append(dst []byte) []byte {
	return append(dst, 0) // reserved
}

// ChannelOpenOk answers channel.open.
type ChannelOpenOk struct{}

// ID is 20, 11.
func (ChannelOpenOk) ID() (class, method uint16) { return 20, 11 }

// Name is channel.open-ok.
func (ChannelOpenOk) Name() string { return "channel.open-ok" }

func (*ChannelOpenOk) decode(d *decoder) {
	d.longBytes() // reserved
}

func (ChannelOpenOk) append(dst []byte) []byte {
	return append(dst, 0, 0, 0, 0) // reserved
}

// ChannelFlow asks the peer to stop or resume sending content.
type ChannelFlow struct {
	Active bool
}

// ID is 20, 20.
func (ChannelFlow) ID() (class, method uint16) { return 20, 20 }

// Name is channel.flow.
func (ChannelFlow) Name() string { return "channel.flow" }

func (m *ChannelFlow) decode(d *decoder) {
	d.bits(&m.Active)
}

func (m ChannelFlow) append(dst []byte) []byte {
	return appendBits(dst, m.Active)
}

// ChannelFlowOk answers channel.flow.
type ChannelFlowOk struct {
	Active bool
}

// ID is 20, 21.
func (ChannelFlowOk) ID() (class, method uint16) { return 20, 21 }

// Name is channel.flow-ok.
func (ChannelFlowOk) Name() string { return "channel.flow-ok" }

func (m *ChannelFlowOk) decode(d *decoder) {
	d.bits(&m.Active)
}

func (m ChannelFlowOk) append(dst []byte) []byte {
	return appendBits(dst, m.Active)
}

// ChannelClose ends the channel; ClassID and MethodID name the offender, if any.
type ChannelClose struct {
	ReplyCode         mq.Code
	ReplyText         string
	ClassID, MethodID uint16
}

// ID is 20, 40.
func (ChannelClose) ID() (class, method uint16) { return 20, 40 }

// Name is channel.close.
func (ChannelClose) Name() string { return "channel.close" }

func (m *ChannelClose) decode(d *decoder) {
	m.ReplyCode = mq.Code(d.short())
	m.ReplyText = d.shortstr()
	m.ClassID = d.short()
	m.MethodID = d.short()
}

func (m ChannelClose) append(dst []byte) []byte {
	dst = appendShort(dst, uint16(m.ReplyCode))
	dst = appendShortstr(dst, m.ReplyText)
	dst = appendShort(dst, m.ClassID)
	return appendShort(dst, m.MethodID)
}

// ChannelCloseOk answers channel.close.
type ChannelCloseOk struct{}

// ID is 20, 41.
func (ChannelCloseOk) ID() (class, method uint16) { return 20, 41 }

// Name is channel.close-ok.
func (ChannelCloseOk) Name() string { return "channel.close-ok" }

func (*ChannelCloseOk) decode(*decoder) {}

func (ChannelCloseOk) append(dst []byte) []byte { return dst }
