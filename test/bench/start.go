package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// servers are the sides there are.
var servers = []struct {
	name  string
	start func(dir string, o options) (*side, error)
}{
	{"skylun", startSkylun},
	{"plain", startPlain},
	{"tgtd-rdwr", startTgtd("rdwr")},
	{"tgtd-aio", startTgtd("aio")},
}

// startAll starts the servers that the rows need, with their files in dir. It
// returns those that run, also with an error.
func (o options) startAll(dir string) ([]*side, error) {
	if !slices.ContainsFunc(o.rows, func(r row) bool { return r.contest == nil }) {
		return nil, nil
	}
	// Four files for reading or overwriting on each side, an image and a
	// cache, and what is written for the first time.
	if err := warm(dir, 10*o.size+2*o.freshBytes()); err != nil {
		return nil, err
	}
	var sides []*side
	for _, server := range servers {
		if !o.need(server.name) {
			continue
		}
		s, err := server.start(dir, o)
		if s != nil {
			sides = append(sides, s)
		}
		if err != nil {
			return sides, fmt.Errorf("start %s: %w", server.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s is ready\n", s.name)
	}
	return sides, nil
}

// need tells whether a row is measured on the named side.
func (o options) need(name string) bool {
	for _, r := range o.rows {
		if r.contest == nil && (name == "skylun" || strings.HasPrefix(name, r.against)) {
			return true
		}
	}
	return false
}
