package wire

// PeekReplyTo returns the reply-to property of property flags and list that
// PeekProperties has passed, as a slice of b; nil if it is not there.
func PeekReplyTo(b []byte) []byte {
	value, _ := replyTo(b)
	return value
}

// WithReplyTo returns a copy of b, which has a reply-to property, with to in
// its place. to must be a short string.
func WithReplyTo(b []byte, to string) []byte {
	value, at := replyTo(b)
	out := make([]byte, 0, len(b)-len(value)+len(to))
	out = appendShortstr(append(out, b[:at]...), to)
	return append(out, b[at+1+len(value):]...)
}

// replyTo finds the reply-to property and where it begins.
func replyTo(b []byte) (value []byte, at int) {
	d := decoder{b: b}
	present := d.short()
	if present&HasReplyTo == 0 {
		return nil, 0
	}
	for flag := HasContentType; flag > HasReplyTo; flag >>= 1 {
		switch {
		case present&flag == 0:
		case flag == HasHeaders:
			d.longBytes()
		case flag == HasDeliveryMode || flag == HasPriority:
			d.skip(1)
		default:
			d.shortBytes()
		}
	}
	at = len(b) - len(d.b)
	return d.shortBytes(), at
}
