package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

//go:embed orders.jsonl
var sample string

// openOrders opens the input: a file, standard input for "-", the sample for "".
func openOrders(name string, stdin io.Reader) (io.ReadCloser, error) {
	switch name {
	case "":
		return io.NopCloser(strings.NewReader(sample)), nil
	case "-":
		return io.NopCloser(stdin), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open orders: %w", err)
	}
	return f, nil
}

// maxLine is the length of a line above which it is no order.
const maxLine = 64 << 10

// readOrders calls take with each order, the first time that its id appears, and bad with
// each line that is none. It ends early when take returns false.
func readOrders(r io.Reader, take func(Order) bool, bad func(line int, err error)) error {
	in := bufio.NewReaderSize(r, maxLine)
	seen := map[string]bool{}
	for line := 1; ; line++ {
		text, tooLong, err := readLine(in)
		if len(bytes.TrimSpace(text)) > 0 {
			o, badLine := parseOrder(text)
			if tooLong {
				badLine = fmt.Errorf("longer than %d bytes", maxLine)
			}
			switch {
			case badLine != nil:
				bad(line, badLine)
			case !seen[o.OrderID]:
				seen[o.OrderID] = true
				if !take(o) {
					return nil
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read orders: %w", err)
		}
	}
}

// readLine reads a line without its end; of one that is too long only the beginning.
func readLine(in *bufio.Reader) (text []byte, tooLong bool, err error) {
	for {
		part, more, err := in.ReadLine()
		if text == nil {
			text = bytes.Clone(part)
		}
		if err != nil || !more {
			return text, tooLong, err
		}
		tooLong = true
	}
}

func parseOrder(line []byte) (Order, error) {
	var o struct {
		OrderID    *string `json:"order_id"`
		CustomerID string  `json:"customer_id"`
		PizzaType  string  `json:"pizza_type"`
	}
	if err := json.Unmarshal(line, &o); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			return Order{}, fmt.Errorf("%s is a %s, not a string", wrong.Field, wrong.Value)
		} else if ok {
			return Order{}, fmt.Errorf("a JSON %s, not an object", wrong.Value)
		}
		return Order{}, fmt.Errorf("not JSON: %w", err)
	}
	if o.OrderID == nil || *o.OrderID == "" {
		return Order{}, errors.New("order_id is missing")
	}
	if err := eventlog.ValidateID(instanceID(*o.OrderID)); err != nil {
		return Order{}, fmt.Errorf("order_id: %w", err)
	}
	return Order{OrderID: *o.OrderID, CustomerID: o.CustomerID, PizzaType: o.PizzaType}, nil
}

func instanceID(orderID string) string { return "order-" + orderID }
