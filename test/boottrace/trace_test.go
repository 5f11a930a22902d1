package boottrace

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"
)

func TestLinux(t *testing.T) {
	for _, size := range []int64{128 << 20, 1 << 30, 10 << 30} {
		const total = 32 << 20
		tr := Linux(size, total, 7)
		if !reflect.DeepEqual(tr, Linux(size, total, 7)) {
			t.Error("the same arguments give another trace")
		}
		rs, bytes := tr.Distinct()
		if bytes < total*3/4 || bytes > total*5/4 || rs[0].Off != 0 || rs[len(rs)-1].End > size || len(rs) < 100 {
			t.Errorf("%d bytes of %d in %d ranges of %v ... %v", bytes, int64(total), len(rs), rs[0], rs[len(rs)-1])
		}
		var n, read atomic.Int64
		if err := tr.Replay(t.Context(), 0, func(_ context.Context, p []byte, off int64) error {
			n.Add(1)
			read.Add(int64(len(p)))
			if off < 0 || off+int64(len(p)) > size {
				t.Errorf("%d+%d", off, len(p))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if int(n.Load()) != tr.Reads() || read.Load() < bytes/2 {
			t.Errorf("%d reads of %d, %d bytes", n.Load(), tr.Reads(), read.Load())
		}
	}
}
