package mq

import "fmt"

// Code is a reply code of AMQP 0-9-1 (§1.1, with RabbitMQ's use of them).
type Code uint16

const (
	ContentTooLarge    Code = 311
	NoRoute            Code = 312
	NoConsumers        Code = 313
	ConnectionForced   Code = 320
	InvalidPath        Code = 402
	AccessRefused      Code = 403
	NotFound           Code = 404
	ResourceLocked     Code = 405
	PreconditionFailed Code = 406
	FrameError         Code = 501
	SyntaxError        Code = 502
	CommandInvalid     Code = 503
	ChannelError       Code = 504
	UnexpectedFrame    Code = 505
	ResourceError      Code = 506
	NotAllowed         Code = 530
	NotImplemented     Code = 540
	InternalError      Code = 541
)

var codeNames = map[Code]string{
	ContentTooLarge: "CONTENT_TOO_LARGE", NoRoute: "NO_ROUTE", NoConsumers: "NO_CONSUMERS",
	ConnectionForced: "CONNECTION_FORCED", InvalidPath: "INVALID_PATH", AccessRefused: "ACCESS_REFUSED",
	NotFound: "NOT_FOUND", ResourceLocked: "RESOURCE_LOCKED", PreconditionFailed: "PRECONDITION_FAILED",
	FrameError: "FRAME_ERROR", SyntaxError: "SYNTAX_ERROR", CommandInvalid: "COMMAND_INVALID",
	ChannelError: "CHANNEL_ERROR", UnexpectedFrame: "UNEXPECTED_FRAME", ResourceError: "RESOURCE_ERROR",
	NotAllowed: "NOT_ALLOWED", NotImplemented: "NOT_IMPLEMENTED", InternalError: "INTERNAL_ERROR",
}

// Error is an error that a client may see. Anything else that reaches a front
// door is shown as 541 and logged.
type Error struct {
	Code Code
	Text string // without the code's name, as RabbitMQ words it
	// ChannelOnly makes a hard code close the channel instead of the
	// connection: a declare that found no quorum says 541 and hurts nobody else.
	ChannelOnly bool
}

// Errorf makes an Error; the text is RabbitMQ's where RabbitMQ has one.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// Error is the reply text: "NOT_FOUND - no queue 'q' in vhost '/'".
func (e *Error) Error() string { return codeNames[e.Code] + " - " + e.Text }

// Hard reports whether the error closes the connection (the hard codes of
// AMQP 0-9-1 §1.1: 320, 402 and all from 501 on) rather than the channel.
func (e *Error) Hard() bool {
	if e.ChannelOnly {
		return false
	}
	return e.Code == ConnectionForced || e.Code == InvalidPath || e.Code >= FrameError
}
