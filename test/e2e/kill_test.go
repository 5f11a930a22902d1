//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"skylun/test/initiator"
)

var (
	killSeed   = flag.Uint64("kill.seed", 0, "seed of TestKill, 0: a new one")
	killRounds = flag.Int("kill.rounds", 20, "how often TestKill kills the server")
)

const (
	sector      = 512
	killWriters = 4
	killRegion  = 16 << 20 / sector // sectors that each writer has for itself
	killSize    = killWriters * killRegion * sector
)

// The server is killed again and again while four sessions write, discard and
// flush. Afterwards every sector has the value it had at the last flush that
// was answered, or one that was written later, and keeps it; and the check
// finds nothing wrong.
func TestKill(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) { killRun(t, st, killEvents{}) })
}

// killEvents are called, unless they are nil, before every start of the first
// half of a round, and while writers write.
type killEvents struct {
	before, writing func(s *server, round int)
}

func killRun(t *testing.T, st store, events killEvents) {
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-kill.seed=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	base := make([]byte, killSize)
	for n := range int64(killSize / sector) {
		stamp(base[n*sector:][:sector], n, 1)
	}
	image := filepath.Join(t.TempDir(), "stamped.img")
	if err := os.WriteFile(image, base, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, st, "volume: disk, image: stamped")
	s.cli("image", "import", image, "stamped")

	writers := make([]*writer, killWriters)
	for i := range writers {
		writers[i] = newWriter(i, rng.Uint64())
	}
	for round := range *killRounds {
		if events.before != nil {
			events.before(s, round)
		}
		s.start()
		for _, w := range writers {
			w.connect(t, s)
		}
		var writing sync.WaitGroup
		for _, w := range writers {
			writing.Go(w.write)
		}
		if events.writing != nil {
			events.writing(s, round)
		}
		time.Sleep(time.Duration(50+rng.IntN(500)) * time.Millisecond) // when it dies is up to chance
		s.kill()
		writing.Wait()

		if round%2 == 0 { // half of the time the server itself is first to see what is left
			s.check()
		}
		s.start()
		for _, w := range writers {
			w.connect(t, s)
			w.verify(t, round)
		}
		if round%2 == 1 {
			s.kill() // nothing was written since the last kill
		} else {
			s.stop()
		}
	}
	s.check()
	var writes, flushes int
	for _, w := range writers {
		writes, flushes = writes+w.writes, flushes+w.flushes
	}
	t.Logf("%d kills, %d writes and discards, %d flushes", *killRounds, writes, flushes)
	if flushes < *killRounds {
		t.Errorf("only %d flushes: the test tests nothing", flushes)
	}
}

// A writer changes a region of the disk that is its own, one command at a
// time, and remembers what each sector of it may hold.
//
// A value of a sector is the number that was stamped on it; 0 is a sector of
// zeros.
type writer struct {
	first int64 // sector the region begins with
	rng   *rand.Rand
	disk  *initiator.Disk

	// may holds, for each sector, the value that is known to be durable and
	// all that were written after it, in order.
	may  [][]uint64
	last uint64 // value

	unflushed       []int // sectors with more than one value
	writes, flushes int
}

func newWriter(n int, seed uint64) *writer {
	w := &writer{first: int64(n) * killRegion, rng: rand.New(rand.NewPCG(seed, 0)), may: make([][]uint64, killRegion), last: 1}
	for i := range w.may {
		w.may[i] = []uint64{1}
	}
	return w
}

// connect opens a session of the writer's own.
func (w *writer) connect(t *testing.T, s *server) {
	t.Helper()
	w.disk = connect(t, s, byte(w.first/killRegion))
}

// write does as it likes until the server is gone.
func (w *writer) write() {
	ctx := context.Background()
	for {
		var err error
		switch what := w.rng.IntN(20); {
		case what == 0:
			if err = w.disk.Flush(ctx); err == nil {
				w.flushed()
			}
		case what == 1:
			at, n := w.place()
			w.note(at, n, 0)
			err = w.disk.Discard(ctx, (w.first+int64(at))*sector, int64(n)*sector)
		default:
			at, n := w.place()
			w.last++
			w.note(at, n, w.last)
			data := make([]byte, n*sector)
			for i := range n {
				stamp(data[i*sector:][:sector], w.first+int64(at+i), w.last)
			}
			err = w.disk.WriteAt(ctx, data, (w.first+int64(at))*sector)
		}
		if err != nil {
			return
		}
	}
}

// place returns sectors to change: whole blocks most of the time, often ones
// that were changed before.
func (w *writer) place() (at, n int) {
	region := killRegion
	if w.rng.IntN(2) == 0 {
		region = 1024
	}
	if w.rng.IntN(3) == 0 {
		n = 1 + w.rng.IntN(40)
		return w.rng.IntN(region - n), n
	}
	n = 8 * (1 + w.rng.IntN(1+w.rng.IntN(16)))
	return w.rng.IntN((region-n)/8) * 8, n
}

// note remembers that sectors are about to get a value.
func (w *writer) note(at, n int, value uint64) {
	w.writes++
	for i := at; i < at+n; i++ {
		if len(w.may[i]) == 1 {
			w.unflushed = append(w.unflushed, i)
		}
		w.may[i] = append(w.may[i], value)
	}
}

// flushed remembers that the last values are durable.
func (w *writer) flushed() {
	w.flushes++
	for _, i := range w.unflushed {
		w.may[i] = w.may[i][len(w.may[i])-1:]
	}
	w.unflushed = w.unflushed[:0]
}

// verify reads the region and requires that every sector holds what it may.
// What it does hold is the only value it may hold from now on.
func (w *writer) verify(t *testing.T, round int) {
	t.Helper()
	data := make([]byte, killRegion*sector)
	if err := w.disk.ReadAt(t.Context(), data, w.first*sector); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	bad := 0
	for i := range w.may {
		value, err := stamped(data[i*sector:][:sector], w.first+int64(i))
		if err == nil && !slices.Contains(w.may[i], value) {
			err = fmt.Errorf("holds value %d", value)
		}
		if err != nil {
			if bad++; bad < 10 {
				t.Errorf("round %d: sector %d, which may hold %v, %v", round, w.first+int64(i), w.may[i], err)
			}
		}
		w.may[i] = []uint64{value}
	}
	w.unflushed = w.unflushed[:0]
	if bad > 0 {
		t.Fatalf("round %d: %d bad sectors", round, bad)
	}
}

// connect opens a session and returns logical unit 0 as a device.
func connect(t *testing.T, s *server, isid byte) *initiator.Disk {
	t.Helper()
	c, err := initiator.Dial(s.portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Timeout = time.Minute
	c.ISID[5] = isid
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.io.skylun:test", Target: iqn}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Disk(0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// stamp fills a sector with its number and a value.
func stamp(p []byte, number int64, value uint64) {
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], uint64(number))
		binary.LittleEndian.PutUint64(p[i+8:], value)
	}
}

// stamped returns the value of a sector: that of all of its parts.
func stamped(p []byte, number int64) (uint64, error) {
	value := binary.LittleEndian.Uint64(p[8:])
	want := make([]byte, len(p))
	if value != 0 {
		stamp(want, number, value)
	}
	if string(p) != string(want) {
		return 0, fmt.Errorf("holds a mixture: % x ... % x", p[:16], p[len(p)-16:])
	}
	return value, nil
}
