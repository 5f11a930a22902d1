package cmd

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
)

// print writes a result: v as JSON, or what text writes.
func (e *env) print(v any, text func(t *table)) error {
	if e.output == "json" {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	t := &table{w: tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)}
	text(t)
	return t.w.Flush()
}

// table is text in aligned columns.
type table struct{ w *tabwriter.Writer }

// row writes one line.
func (t *table) row(cells ...any) {
	s := make([]string, len(cells))
	for i, c := range cells {
		s[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(s, "\t"), "\t"))
}
