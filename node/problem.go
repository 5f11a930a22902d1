package node

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Key  string // as written in the file: targets[0].luns[1].disk.size
	Text string // what is wrong and what would be right
}

// Error returns the problem as one line.
func (p Problem) Error() string { return p.Key + ": " + p.Text }

// Problems is everything that is wrong with a configuration, an error with a
// line for each.
type Problems []Problem

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps *Problems) add(key, format string, args ...any) {
	*ps = append(*ps, Problem{key, fmt.Sprintf(format, args...)})
}

// unsupported adds that a key of the documented configuration asks for
// something that this version does not do.
func (ps *Problems) unsupported(key, what string) {
	ps.add(key, "not supported yet: %s", what)
}

// err returns ps, or nil when it is empty.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}
