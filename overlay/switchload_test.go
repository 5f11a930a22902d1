package overlay

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skylun/block"
	"skylun/test/devicetest"
)

// mortalFile is a memFile that fails once it is closed.
type mortalFile struct {
	*memFile
	closed atomic.Bool
}

func (f *mortalFile) ReadAt(p []byte, off int64) error {
	if f.closed.Load() {
		return errors.New("read of a closed file")
	}
	return f.memFile.ReadAt(p, off)
}

func (f *mortalFile) TryReadAt(p []byte, off int64) (bool, error) { return true, f.ReadAt(p, off) }

func (f *mortalFile) Close() error { f.closed.Store(true); return nil }

// stream is writes that follow each other: each begins after the one before was
// answered. Write n puts n into one sector of one volume. Streams have sectors
// of their own.
type stream struct {
	begun, acked atomic.Uint64
	mu           sync.Mutex
	log          []slot // guarded by mu: of write n+1
}

type slot struct {
	vol    int
	sector int64
}

const (
	loadVolumes = 4
	loadStreams = 3
	loadSectors = 32 * block.Size / sector
)

// load is volumes that are written to, read, flushed and snapshotted at once.
type load struct {
	t       *testing.T
	vols    [loadVolumes]*Volume
	chains  [loadVolumes][]*Layer
	streams [loadStreams]*stream
	shown   [loadVolumes][loadSectors]atomic.Uint64 // the last value of each sector that was answered
	ids     uint64
}

func (l *load) layer() *Layer {
	l.ids++
	const size = loadSectors * sector
	x, err := OpenLayer(LayerConfig{Name: fmt.Sprint(l.ids), ID: l.ids, Size: size, File: &mortalFile{memFile: newMemFile(size)}, Map: &memMap{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.t.Fatal(err)
	}
	return x
}

// write is one stream.
func (l *load) write(s int, seed uint64, stop *atomic.Bool) {
	st := l.streams[s]
	rnd := rand.New(rand.NewPCG(seed, uint64(s)))
	p := make([]byte, sector)
	for n := uint64(1); !stop.Load(); n++ {
		at := slot{rnd.IntN(loadVolumes), rnd.Int64N(loadSectors/loadStreams)*loadStreams + int64(s)}
		st.mu.Lock()
		st.log = append(st.log, at)
		st.mu.Unlock()
		fillSectors(p, n)
		v := l.vols[at.vol]
		st.begun.Store(n)
		var err error
		switch rnd.IntN(4) {
		case 0:
			err = v.Update(l.t.Context(), make([]byte, sector), at.sector*sector, func(q []byte) (bool, error) { copy(q, p); return true, nil })
		case 1:
			var done bool
			if done, err = v.TryWriteAt(p, at.sector*sector); done || err != nil {
				break
			}
			fallthrough
		default:
			err = v.WriteAt(l.t.Context(), p, at.sector*sector)
		}
		if err != nil {
			l.t.Errorf("write: %v", err)
			return
		}
		l.shown[at.vol][at.sector].Store(n)
		st.acked.Store(n)
	}
}

// read reads sectors: each holds what was answered last before, or later.
func (l *load) read(seed uint64, stop *atomic.Bool) {
	rnd := rand.New(rand.NewPCG(seed, 77))
	for !stop.Load() {
		i, first := rnd.IntN(loadVolumes), rnd.Int64N(loadSectors)
		n := min(1+rnd.Int64N(24), loadSectors-first)
		var least [24]uint64
		for k := range n {
			least[k] = l.shown[i][first+k].Load()
		}
		p := make([]byte, n*sector)
		if err := l.vols[i].ReadAt(l.t.Context(), p, first*sector); err != nil {
			l.t.Errorf("read: %v", err)
			return
		}
		for k := range n {
			value, err := sectorValue(p[k*sector : (k+1)*sector])
			if err != nil || value < least[k] {
				l.t.Errorf("sector %d of volume %d holds %d (%v), and held %d before", first+k, i, value, err, least[k])
				return
			}
		}
	}
}

// instant is a snapshot of all volumes, and how far the streams were before and
// after it was taken.
type instant struct {
	chains        [loadVolumes][]*Layer
	before, after [loadStreams]uint64
}

// check reads a snapshot. Of each stream it has the writes up to one, and none
// that came later.
func (l *load) check(in *instant) {
	var got [loadVolumes][]byte
	for i, chain := range in.chains {
		top := l.layer()
		v, err := Open(Config{Name: "snapshot", Size: loadSectors * sector, Layers: append(slices.Clone(chain), top)})
		if err != nil {
			l.t.Fatal(err)
		}
		got[i] = make([]byte, loadSectors*sector)
		if err := v.ReadAt(l.t.Context(), got[i], 0); err != nil {
			l.t.Fatal(err)
		}
	}
	for s, st := range l.streams {
		value := func(at slot) uint64 {
			v, err := sectorValue(got[at.vol][at.sector*sector : (at.sector+1)*sector])
			if err != nil {
				l.t.Fatal(err)
			}
			return v
		}
		last := uint64(0)
		for i := range loadVolumes {
			for n := int64(s); n < loadSectors; n += loadStreams {
				last = max(last, value(slot{i, n}))
			}
		}
		if last < in.before[s] || last > in.after[s] {
			l.t.Fatalf("stream %d: write %d is the last one that a snapshot has; %d was answered before it, %d had begun after it", s, last, in.before[s], in.after[s])
		}
		want := map[slot]uint64{}
		st.mu.Lock()
		for n, at := range st.log[:last] {
			want[at] = uint64(n + 1)
		}
		st.mu.Unlock()
		for i := range loadVolumes {
			for n := int64(s); n < loadSectors; n += loadStreams {
				if at := (slot{i, n}); value(at) != want[at] {
					l.t.Fatalf("stream %d: a snapshot has write %d, and in sector %d of volume %d write %d instead of %d", s, last, n, i, value(at), want[at])
				}
			}
		}
	}
}

// TestSwitchUnderLoad takes snapshots of volumes while ordered writes across all of
// them, reads and flushes go on, and layers below are thinned, merged and
// closed: each snapshot is one instant, also when it is read again later; no read
// ever goes back in time, or to a file that is closed.
func TestSwitchUnderLoad(t *testing.T) {
	seed := devicetest.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 100))
	l := &load{t: t}
	for i := range l.vols {
		l.chains[i] = []*Layer{l.layer()}
		v, err := Open(Config{Name: fmt.Sprint(i), Size: loadSectors * sector, Layers: l.chains[i], Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		l.vols[i] = v
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for s := range l.streams {
		l.streams[s] = &stream{}
		wg.Go(func() { l.write(s, seed, &stop) })
	}
	wg.Go(func() { l.read(seed, &stop) })
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if err := l.vols[i%loadVolumes].Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	var snaps []*instant
	worst := time.Duration(0)
	rounds := 40
	if raceEnabled {
		rounds = 15
	}
	for range rounds {
		in := &instant{}
		steps := make([]Step, loadVolumes)
		for i, v := range l.vols {
			steps[i] = Step{v, l.layer()}
			in.chains[i] = slices.Clone(l.chains[i])
		}
		rnd.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		for s, st := range l.streams {
			in.before[s] = st.acked.Load()
		}
		held, err := Switch(steps)
		if err != nil {
			t.Fatal(err)
		}
		for s, st := range l.streams {
			in.after[s] = st.begun.Load()
		}
		worst = max(worst, held)
		for _, step := range steps {
			i := slices.Index(l.vols[:], step.Volume)
			l.chains[i] = append(l.chains[i], step.Top)
		}
		snaps = append(snaps, in)
		if rnd.IntN(2) == 0 {
			l.check(in)
		}
		for len(snaps) > 5 {
			j := rnd.IntN(len(snaps))
			snaps = slices.Delete(snaps, j, j+1)
		}
		for i := range l.vols {
			l.tidy(i, snaps)
		}
	}
	stop.Store(true)
	wg.Wait()
	for _, in := range snaps {
		l.check(in)
	}
	for i, v := range l.vols {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		for _, x := range l.chains[i] {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	n := uint64(0)
	for _, st := range l.streams {
		n += st.acked.Load()
	}
	t.Logf("%d writes, %d layers, held at most %v", n, l.ids, worst)
	if n < uint64(rounds) {
		t.Error("too few writes")
	}
}

// tidy thins or merges one layer of a volume that no snapshot ends with.
func (l *load) tidy(i int, snaps []*instant) {
	for j, lower := range l.chains[i][:len(l.chains[i])-1] {
		if slices.ContainsFunc(snaps, func(in *instant) bool { return in.chains[i][len(in.chains[i])-1] == lower }) {
			continue
		}
		upper := l.chains[i][j+1]
		if upper == l.vols[i].top() {
			if _, err := Shadow(l.t.Context(), lower, upper, l.vols[i:i+1]); err != nil {
				l.t.Fatal(err)
			}
			return
		}
		var gone *Layer
		err := Merge(l.t.Context(), lower, upper, func(_, g *Layer) ([]*Volume, error) { gone = g; return l.vols[:], nil })
		if err != nil {
			l.t.Fatal(err)
		}
		drop := func(chain []*Layer) []*Layer {
			return slices.DeleteFunc(slices.Clone(chain), func(x *Layer) bool { return x == gone })
		}
		l.chains[i] = drop(l.chains[i])
		for _, in := range snaps {
			in.chains[i] = drop(in.chains[i])
		}
		if err := gone.Abandon(); err != nil {
			l.t.Fatal(err)
		}
		return
	}
}
