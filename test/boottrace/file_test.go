package boottrace

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFile(t *testing.T) {
	want := Linux(1<<30, 8<<20, 3)
	for _, s := range want {
		for _, c := range s {
			for i := range c {
				c[i].Think = c[i].Think.Truncate(time.Microsecond)
			}
		}
	}
	var b bytes.Buffer
	if err := Encode(&b, want, 1<<30, "one line\nand another"); err != nil {
		t.Fatal(err)
	}
	got, size, err := Decode(&b)
	if err != nil || size != 1<<30 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d bytes, error %v, or another trace", size, err)
	}
	for _, bad := range []string{
		"", "size 8\n", "size 0\n0,1,0\n\n", "0,1,0\n\n", "size 8\n0,1,0\n", // cut off
		"size 8\n0,9,0\n\n", "size 8\n8,1,0\n\n", "size 8\n-1,1,0\n\n", "size 8\n0,0,0\n\n", "size 8\n0,1,-1\n\n", "size 8\n0,1\n\n",
		"size 8\n36028797018963968,1,0\n\n",
	} {
		if tr, _, err := Decode(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for %v", bad, tr)
		}
	}
}

// TestDebian: what was recorded is a boot: it begins with the first sector, and reads
// a loader, a kernel and the files of a system.
func TestDebian(t *testing.T) {
	tr, size := Debian()
	rs, n := tr.Distinct()
	if size != 4<<30 || tr[0][0][0].Off != 0 || n < 64<<20 || n > 1<<30 || len(rs) < 500 || tr.Reads() < 1000 {
		t.Errorf("%d reads of %d bytes in %d ranges of %d bytes, from %d on", tr.Reads(), n, len(rs), size, tr[0][0][0].Off)
	}
}
