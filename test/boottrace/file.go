package boottrace

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"

	"skylun/block"
)

//go:embed debian12.trace
var debian string

// Debian returns the trace of a Debian that booted from a disk of skylun, and
// the size of that disk. The first lines of the file say what it is. The guest
// was emulated, so it thinks for longer than a real one.
func Debian() (t Trace, size int64) {
	t, size, err := Decode(strings.NewReader(debian))
	if err != nil {
		panic(err) // it is part of the program
	}
	return t, size
}

// Encode writes a trace as text: about is what a reader should know of it, then
// come the size of the disk and the chains, one a line, with an empty line
// behind each stage. A read is its offset and length in sectors of 512 bytes,
// and the microseconds that the guest works before.
func Encode(w io.Writer, t Trace, size int64, about string) error {
	b := bufio.NewWriter(w)
	for line := range strings.Lines(about) {
		fmt.Fprintf(b, "# %s\n", strings.TrimSpace(line))
	}
	fmt.Fprintf(b, "size %d\n", size/512)
	for _, stage := range t {
		for _, chain := range stage {
			for i, r := range chain {
				if i > 0 {
					b.WriteByte(' ')
				}
				fmt.Fprintf(b, "%d,%d,%d", r.Off/512, r.Len/512, r.Think.Microseconds())
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return b.Flush()
}

// Decode reads what Encode wrote.
func Decode(r io.Reader) (t Trace, size int64, err error) {
	var stage Stage
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case size == 0:
			if _, err := fmt.Sscanf(line, "size %d", &size); err != nil || size <= 0 {
				return nil, 0, fmt.Errorf("line %d: no size of the disk: %q", n, line)
			}
			size *= 512
		case line == "":
			t, stage = append(t, stage), nil
		default:
			var chain Chain
			for f := range strings.FieldsSeq(line) {
				var off, length, think int64
				if _, err := fmt.Sscanf(f, "%d,%d,%d", &off, &length, &think); err != nil {
					return nil, 0, fmt.Errorf("line %d: no read: %q", n, f)
				}
				if length <= 0 || think < 0 || block.CheckRange(off, length, size/512) != nil {
					return nil, 0, fmt.Errorf("line %d: no read of a disk of %d bytes: %q", n, size, f)
				}
				chain = append(chain, Read{off * 512, int(length * 512), time.Duration(think) * time.Microsecond})
			}
			stage = append(stage, chain)
		}
	}
	if err := s.Err(); err != nil {
		return nil, 0, err
	}
	if len(t) == 0 || stage != nil {
		return nil, 0, fmt.Errorf("the trace has no end")
	}
	return t, size, nil
}
