package machine

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// MergePatch applies a merge patch (RFC 7386) to the top-level fields of an object: a null
// removes the field, anything else replaces it whole. The result has its fields sorted, so
// that equal histories give equal bytes. It panics when either is no JSON object; both were
// checked when they were decided.
func MergePatch(object, patch json.RawMessage) json.RawMessage {
	fields := map[string]json.RawMessage{}
	if len(object) > 0 {
		if err := json.Unmarshal(object, &fields); err != nil {
			panic(fmt.Sprintf("machine: parameters: %v", err))
		}
	}
	changes := map[string]json.RawMessage{}
	if err := json.Unmarshal(patch, &changes); err != nil {
		panic(fmt.Sprintf("machine: patch of parameters: %v", err))
	}
	for name, value := range changes {
		if string(value) == "null" {
			delete(fields, name)
		} else {
			fields[name] = value
		}
	}
	out, err := json.Marshal(fields)
	if err != nil {
		panic(fmt.Sprintf("machine: parameters: %v", err))
	}
	return out
}

// isObject says whether data is one JSON object.
func isObject(data json.RawMessage) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && json.Valid(data)
}
