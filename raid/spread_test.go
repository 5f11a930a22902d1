package raid_test

import (
	"testing"
	"testing/synctest"
	"time"

	"skylun/raid"
	"skylun/raid/raidtest"
)

// slow is a member that does one thing at a time, as fast as it says.
type slow struct {
	*raidtest.Dir
	turn chan struct{}
}

type slowPiece struct {
	raid.Piece
	turn chan struct{}
}

// slowRate is bytes a second.
const slowRate = 64 << 20

func (m slow) Create(name string, size int64) (raid.Piece, error) {
	p, err := m.Dir.Create(name, size)
	return slowPiece{p, m.turn}, err
}

func (p slowPiece) busy(n int) func() {
	p.turn <- struct{}{}
	time.Sleep(time.Duration(n) * time.Second / slowRate)
	return func() { <-p.turn }
}

func (p slowPiece) ReadAt(b []byte, off int64) error {
	defer p.busy(len(b))()
	return p.Piece.ReadAt(b, off)
}

func (p slowPiece) WriteAt(b []byte, off int64) error {
	defer p.busy(len(b))()
	return p.Piece.WriteAt(b, off)
}

func (p slowPiece) Sync() error {
	defer p.busy(slowRate / 100)()
	return p.Piece.Sync()
}

// TestParallel: members of one speed, which is what bounds it, are as fast
// together as all of them; those of different weight, too.
func TestParallel(t *testing.T) {
	timed := func(weights ...int) (read, write, sync time.Duration) {
		c := raid.Config{Records: raidtest.NewRecords(nil), Stripe: 64 << 10}
		for _, w := range weights {
			c.Members = append(c.Members, raid.MemberConfig{Member: slow{raidtest.NewDir(1<<30, nil), make(chan struct{}, 1)}, Weight: w})
		}
		a, err := raid.OpenArray(c)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		f, err := a.Create("layers/1", 16<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := make([]byte, 4<<20)
		measure := func(do func() error) time.Duration {
			begin := time.Now()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		write = measure(func() error { return f.WriteAt(p, 1<<20) })
		sync = measure(f.Sync)
		read = measure(func() error { return f.ReadAt(p, 1<<20) })
		if again := measure(f.Sync); again != 0 {
			t.Errorf("a sync of what was not written took %v", again)
		}
		return read, write, sync
	}
	synctest.Test(t, func(t *testing.T) {
		read1, write1, sync1 := timed(0)
		read4, write4, sync4 := timed(0, 0, 0, 0)
		if 10*read1 < 36*read4 || 10*write1 < 36*write4 {
			t.Errorf("one member: read %v, write %v; four: %v, %v", read1, write1, read4, write4)
		}
		if sync4 > sync1 {
			t.Errorf("sync of four members takes %v, of one %v", sync4, sync1)
		}
		_, write3, _ := timed(3, 1) // the one of weight 3 has three quarters of it
		if want := write1 * 3 / 4; (write3 - want).Abs() > time.Microsecond {
			t.Errorf("weights 3 and 1: write %v, want %v", write3, want)
		}
	})
}
