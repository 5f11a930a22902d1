package node

import (
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Size
		err  string
	}{
		{"4096", 4096, ""},
		{"10GiB", 10 << 30, ""},
		{" 1.5 TiB ", 3 << 39, ""},
		{"512B", 512, ""},
		{"0.5KiB", 512, ""},
		{"8191PiB", 8191 << 50, ""},
		{"8192PiB", 0, "too large"},
		{"0.3KiB", 0, "whole number"},
		{"10GB", 0, "10GiB"},
		{"10G", 0, `unit "G"`},
		{"ten", 0, "not a size"},
		{"-1", 0, "not a size"},
		{"", 0, "not a size"},
		{"1e3", 0, "not a size"},
	} {
		got, err := ParseSize(c.in)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("ParseSize(%q) = %d, %v, want %d", c.in, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("ParseSize(%q) = %v, want an error with %q", c.in, err, c.err)
		}
	}
}

func TestSizeString(t *testing.T) {
	for _, c := range []struct {
		in           Size
		exact, human string
	}{
		{0, "0", "0 B"},
		{1000, "1000", "1000 B"},
		{10 << 30, "10GiB", "10 GiB"},
		{3 << 39, "1536GiB", "1.5 TiB"},
		{1<<30 + 512, "1073742336", "1 GiB"},
		{1567 << 20, "1567MiB", "1.53 GiB"},
		{1000 << 20, "1000MiB", "1000 MiB"},
	} {
		if got := c.in.String(); got != c.exact {
			t.Errorf("Size(%d).String() = %q, want %q", int64(c.in), got, c.exact)
		}
		if got := c.in.Human(); got != c.human {
			t.Errorf("Size(%d).Human() = %q, want %q", int64(c.in), got, c.human)
		}
		back, err := ParseSize(c.in.String())
		if err != nil || back != c.in {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", c.in.String(), back, err, c.in)
		}
	}
}
