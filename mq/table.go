package mq

// Table is a field table (AMQP 0-9-1 §4.2.5.5) in the order it was sent.
// Tables are small: looking a key up walks it.
//
// A value is one of: nil, bool, int8, uint8, int16, uint16, int32, uint32,
// int64, uint64, float32, float64, Decimal, string, []byte ('x'), time.Time
// (whole seconds), Table, or []any of these.
type Table []Field

// Field is one entry of a Table.
type Field struct {
	Key   string
	Value any
}

// Decimal is a decimal value (§4.2.5.4, 'D'): Value / 10^Scale.
type Decimal struct {
	Scale uint8
	Value uint32
}

// Get returns the value of key, and whether it is there.
func (t Table) Get(key string) (any, bool) {
	for i := range t {
		if t[i].Key == key {
			return t[i].Value, true
		}
	}
	return nil, false
}

// Int returns the value of key as an int64 if it is a whole number of any width.
func (t Table) Int(key string) (int64, bool) {
	v, _ := t.Get(key)
	return Int(v)
}

// String returns the value of key if it is a string.
func (t Table) String(key string) (string, bool) {
	v, _ := t.Get(key)
	s, ok := v.(string)
	return s, ok
}

// Int converts a whole number of any width.
func Int(v any) (int64, bool) {
	switch n := v.(type) {
	case int8:
		return int64(n), true
	case uint8:
		return int64(n), true
	case int16:
		return int64(n), true
	case uint16:
		return int64(n), true
	case int32:
		return int64(n), true
	case uint32:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= 1<<63-1
	}
	return 0, false
}
