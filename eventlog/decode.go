package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// DecodeEvent reads an encoded event into e.
func DecodeEvent(data []byte, e *Event) error {
	*e = Event{}
	var head struct {
		V    int    `json:"v"`
		N    uint64 `json:"n"`
		Type Type   `json:"type"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	switch {
	case head.V < 1:
		return errors.New("decode event: field v is missing or not positive")
	case head.N < 1:
		return errors.New("decode event: field n is missing or not positive")
	case head.Type == "":
		return errors.New("decode event: field type is missing")
	case head.V > MaxVersion(head.Type):
		return fmt.Errorf("decode event: type %q version %d: %w", head.Type, head.V, ErrUnknownVersion)
	}
	if err := json.Unmarshal(data, e); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.Token()
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		if name, _ := k.(string); !eventFields[name] {
			e.Extra = append(e.Extra, Field{name, raw})
		}
	}
	return nil
}

var eventFields = func() map[string]bool {
	m := map[string]bool{}
	for f := range reflect.TypeFor[Event]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "-" {
			m[name] = true
		}
	}
	return m
}()
