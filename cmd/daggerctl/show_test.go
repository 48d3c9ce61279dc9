package main

import (
	"strings"
	"testing"
	"time"
)

// TestShowHasTheWholeError: show is where one looks for what a list cuts off.
func TestShowHasTheWholeError(t *testing.T) {
	var out strings.Builder
	e := &env{stdout: &out, now: time.Now}
	cause := strings.Repeat("the shop is closed, ", 20) + "\nask again"
	v := instance{ID: "order-42", Definition: "Order", Status: "FAILURE", Error: cause, Tasks: []task{{Path: "ask", Status: "FAILURE", Error: cause}}}
	if err := e.showTable(v, nil, 0); err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(cause, "\n", " "); strings.Count(out.String(), want) != 2 {
		t.Errorf("the error is cut off:\n%s", out.String())
	}
}
