package management

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"warren/mq"
)

// Properties is a field table as a JSON object. All that a client can put into
// a table comes out as something: what JSON has no word for as text.
func Properties(t mq.Table) json.RawMessage {
	b, err := json.Marshal(plain(t))
	if err != nil { // of all types that a table has, none is left that could
		return json.RawMessage("{}")
	}
	return b
}

func plain(v any) any {
	switch v := v.(type) {
	case mq.Table:
		out := make(map[string]any, len(v))
		for _, f := range v {
			if _, twice := out[f.Key]; !twice { // the first counts, as for Table.Get
				out[f.Key] = plain(f.Value)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case float32:
		return plain(float64(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
		return v
	case []byte:
		return string(v)
	case time.Time:
		return v.Unix()
	case mq.Decimal:
		return float64(v.Value) / math.Pow10(int(v.Scale))
	}
	return v
}
