package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// column of a table: its title and how its cell is made of a row.
type column struct {
	title string
	cell  func(object) string
}

// at is the column of one member, titled with its name.
func at(name string) column {
	return column{strings.ToUpper(strings.ReplaceAll(name, "_", " ")), func(o object) string { return cell(o.get(name)) }}
}

// columnsOf makes columns of member names.
func columnsOf(names ...string) []column {
	columns := make([]column, len(names))
	for i, n := range names {
		columns[i] = at(n)
	}
	return columns
}

// table lays out rows; its columns keep the widths they have grown to, so that it can be printed page by page.
type table struct {
	columns []column
	widths  []int
	headed  bool
}

func newTable(columns []column) *table {
	return &table{columns: columns, widths: make([]int, len(columns))}
}

// add renders rows, with the header the first time.
func (t *table) add(rows []object) string {
	var lines [][]string
	if !t.headed {
		t.headed = true
		lines = append(lines, t.line(func(c column) string { return c.title }))
	}
	for _, row := range rows {
		lines = append(lines, t.line(func(c column) string { return c.cell(row) }))
	}
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(t.padded(line))
	}
	return b.String()
}

func (t *table) line(text func(column) string) []string {
	line := make([]string, len(t.columns))
	for i, c := range t.columns {
		line[i] = printable(text(c))
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(line[i]))
	}
	return line
}

func (t *table) padded(line []string) string {
	var b strings.Builder
	for i, text := range line {
		b.WriteString(text)
		b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(text)+2))
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

// describe renders an object for reading: a line for each plain member, then a table for each list of objects.
func describe(o object, columns map[string][]column) string {
	var lines, tables strings.Builder
	width := 0
	for _, m := range o {
		width = max(width, len(m.name))
	}
	for _, m := range o {
		rows, isTable := rowsOf(m.value)
		if !isTable {
			fmt.Fprintf(&lines, "%-*s  %s\n", width, m.name, printable(cell(m.value)))
			continue
		}
		cols := columns[m.name]
		if cols == nil {
			cols = filled(rows)
		}
		tables.WriteString("\n" + newTable(cols).add(rows))
	}
	return lines.String() + tables.String()
}

// rowsOf returns the objects of a list that is not empty and holds only objects.
func rowsOf(v any) ([]object, bool) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, false
	}
	rows := make([]object, len(list))
	for i, item := range list {
		if rows[i], ok = item.(object); !ok {
			return nil, false
		}
	}
	return rows, true
}

// filled are the columns in which some row has something.
func filled(rows []object) []column {
	var columns []column
	for _, m := range rows[0] {
		for _, row := range rows {
			if cell(row.get(m.name)) != empty {
				columns = append(columns, at(m.name))
				break
			}
		}
	}
	return columns
}

// empty is how an absent value looks; a blank cell would make columns unreadable for eyes and awk.
const empty = "-"

// cell is a value on one line.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return empty
	case string:
		if v == "" {
			return empty
		}
		return v
	case object:
		return joined(len(v), func(i int) string { return v[i].name + "=" + cell(v[i].value) })
	case []any:
		return joined(len(v), func(i int) string { return cell(v[i]) })
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(v)
}

func joined(n int, part func(int) string) string {
	if n == 0 {
		return empty
	}
	parts := make([]string, n)
	for i := range parts {
		parts[i] = part(i)
	}
	return strings.Join(parts, ",")
}

// printable replaces what could steer a terminal: reasons, labels and names come from other people.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
