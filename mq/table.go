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

// TypeName is RabbitMQ's name of the AMQP type of a table's value.
func TypeName(v any) string {
	switch v.(type) {
	case nil:
		return "void"
	case bool:
		return "bool"
	case int8:
		return "byte"
	case uint8:
		return "unsignedbyte"
	case int16:
		return "short"
	case uint16:
		return "unsignedshort"
	case int32:
		return "signedint"
	case uint32:
		return "unsignedint"
	case int64, uint64:
		return "long"
	case float32:
		return "float"
	case float64:
		return "double"
	case Decimal:
		return "decimal"
	case string:
		return "longstr"
	case []byte:
		return "binary"
	case Table:
		return "table"
	case []any:
		return "array"
	}
	return "timestamp"
}
