package cmd

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"skylun/node"
)

// A configuration file is checked against the types it is read into before
// anything is taken from it, so that a wrong key or value is reported with its
// full name and line, and all of them at once.

// fileKeys is what a configuration file holds.
type fileKeys struct {
	values   map[string]any // nested; strings and lists as written, numbers decoded
	lines    map[string]int // of each key, by its full name
	problems node.Problems
}

// readKeys reads one YAML document into values that fit the type of into.
func readKeys(r io.Reader, into any) (*fileKeys, error) {
	k := &fileKeys{lines: map[string]int{}}
	dec := yaml.NewDecoder(r)
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case err == io.EOF: // empty, or nothing but comments
		return k, nil
	case err != nil:
		return nil, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if dec.Decode(new(yaml.Node)) != io.EOF {
		return nil, fmt.Errorf("more than one YAML document; remove the second ---")
	}
	v := k.read(doc.Content[0], reflect.TypeOf(into), "")
	k.values, _ = v.(map[string]any)
	return k, nil
}

func (k *fileKeys) problem(key, format string, args ...any) {
	k.problems = append(k.problems, node.Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// read returns the value of n, which is to go into a t, or nil.
func (k *fileKeys) read(n *yaml.Node, t reflect.Type, key string) any {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	switch {
	case isScalar(t) && !(n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct): // a struct may have a short form
		return k.readScalar(n, t, key)
	case t.Kind() == reflect.Slice:
		return k.readList(n, t, key)
	}
	return k.readMap(n, t, key)
}

func (k *fileKeys) readMap(n *yaml.Node, t reflect.Type, key string) any {
	if n.Kind != yaml.MappingNode {
		name := key
		if name == "" {
			name = "file"
		}
		k.problem(name, "want keys and values (%s), not %s", strings.Join(keysOf(t), ", "), kindOf(n))
		return nil
	}
	m := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		full := join(key, name.Value)
		_, dup := m[name.Value]
		if !dup {
			k.lines[full] = name.Line
		}
		f, ok := fieldOf(t, name.Value)
		switch {
		case !ok:
			k.problem(full, "unknown key%s", didYouMean(name.Value, keysOf(t)))
		case dup:
			k.problem(full, "given twice, in lines %d and %d", k.lines[full], name.Line)
		default:
			m[name.Value] = k.read(value, f.Type, full)
		}
	}
	return m
}

func (k *fileKeys) readList(n *yaml.Node, t reflect.Type, key string) any {
	if n.Kind != yaml.SequenceNode {
		k.problem(key, "want a list, not %s", kindOf(n))
		return nil
	}
	list := []any{}
	for i, e := range n.Content {
		full := fmt.Sprintf("%s[%d]", key, i)
		k.lines[full] = e.Line
		list = append(list, k.read(e, t.Elem(), full))
	}
	return list
}

func (k *fileKeys) readScalar(n *yaml.Node, t reflect.Type, key string) any {
	if n.Kind != yaml.ScalarNode {
		k.problem(key, "want %s, not %s", wantOf(t), kindOf(n))
		return nil
	}
	v := reflect.New(t)
	err := n.Decode(v.Interface())
	if _, own := v.Interface().(encoding.TextUnmarshaler); own {
		if err != nil {
			k.problem(key, "%v", err)
			return nil
		}
		return n.Value
	}
	// YAML would round 1.5 to a number and take 5 for nanoseconds.
	tag := n.ShortTag()
	if err != nil || t == reflect.TypeFor[int]() && tag != "!!int" || t == reflect.TypeFor[time.Duration]() && tag != "!!str" {
		k.problem(key, "%q is not %s", n.Value, wantOf(t))
		return nil
	}
	switch v := v.Interface().(type) {
	case *bool:
		return *v
	case *int:
		return *v
	}
	return n.Value
}

func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice
}

// isTextList tells whether t is a list of what can be written as texts.
func isTextList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.String || isScalar(t.Elem()) && t.Elem().Kind() == reflect.Struct)
}

func wantOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[node.Size]():
		return "a size such as 10GiB"
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 20s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	}
	return "a text"
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// keyOf returns the key of a field, or "" for one that no file can set.
func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func fieldOf(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); key != "" && keyOf(f) == key {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if k := keyOf(t.Field(i)); k != "" {
			keys = append(keys, k)
		}
	}
	return keys
}

// scalarKeys calls f with the full name of every key of t that holds one
// value or a list of what can be written as texts, and that is not inside a list.
func scalarKeys(t reflect.Type, prefix string, f func(key string, t reflect.Type)) {
	for i := range t.NumField() {
		field := t.Field(i)
		key := keyOf(field)
		switch {
		case key == "":
		case isScalar(field.Type), isTextList(field.Type):
			f(join(prefix, key), field.Type)
		case field.Type.Kind() == reflect.Struct:
			scalarKeys(field.Type, join(prefix, key), f)
		}
	}
}

// didYouMean returns a hint at the nearest of the names, or at all of them.
func didYouMean(got string, names []string) string {
	best, dist := "", 3
	for _, n := range names {
		d := distance(got, n)
		if d < dist && d < len(n) {
			best, dist = n, d
		} else if best == "" && len(got) > 2 && (strings.HasPrefix(n, got) || strings.HasPrefix(got, n)) {
			best = n
		}
	}
	if best == "" {
		return "; known here: " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is how many letters must be added, dropped, replaced or swapped
// with their neighbour to get from a to b.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	var before, prev []int
	for i := range len(a) + 1 {
		row := make([]int, len(b)+1)
		for j := range row {
			if i == 0 || j == 0 {
				row[j] = i + j
				continue
			}
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = slices.Min([]int{prev[j] + 1, row[j-1] + 1, prev[j-1] + cost})
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(b)]
}
