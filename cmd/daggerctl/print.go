package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// print writes one JSON value; indented where people may read it.
func (e *env) print(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetEscapeHTML(false)
	if e.output == "json" {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// table writes rows in columns.
type table struct {
	stdout io.Writer
	rows   [][]string
}

func (e *env) table(head ...string) *table {
	t := &table{stdout: e.stdout}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for k, c := range cells {
		cells[k] = clean(c)
	}
	t.rows = append(t.rows, cells)
}

// end writes the rows. A column is as wide as its widest cell that has another one behind it.
func (t *table) end() error {
	var wide []int
	for k, cells := range t.rows {
		for len(cells) > 0 && cells[len(cells)-1] == "" {
			cells = cells[:len(cells)-1]
		}
		t.rows[k] = cells
		for c, cell := range cells {
			if c == len(wide) {
				wide = append(wide, 0)
			}
			if c < len(cells)-1 {
				wide[c] = max(wide[c], utf8.RuneCountInString(cell))
			}
		}
	}
	w := bufio.NewWriter(t.stdout)
	for _, cells := range t.rows {
		for c, cell := range cells {
			if c < len(cells)-1 {
				cell = fmt.Sprintf("%-*s  ", wide[c], cell)
			}
			_, _ = w.WriteString(cell) // Flush has the error
		}
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// clean is text that can't break a table or the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// line is the first line of an error, of bounded length.
func line(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	const most = 120
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// time is a time in a table; "" for none.
func (e *env) time(t time.Time) string {
	switch d := e.now().Sub(t); {
	case t.IsZero() || t.UnixMilli() == 0:
		return ""
	case e.iso:
		return t.UTC().Format("2006-01-02T15:04:05.000Z")
	case d < 0:
		return "in " + span(-d)
	default:
		return span(d) + " ago"
	}
}

func (e *env) timep(t *time.Time) string {
	if t == nil {
		return ""
	}
	return e.time(*t)
}

// span is a duration in its greatest unit.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
