package prefetch

import "skylun/block"

const (
	streamCount = 16
	streamMin   = 128 << 10 // the first window
	streamUsual = 2 << 20   // the largest one while nothing is known of the store
	streamMost  = 32 << 20
	streamGap   = 256 << 10 // what a stream may leave out
	streamPiece = 64 << 10  // a window moves on when so much of it is read, or an eighth
	streamLong  = 8 << 20   // who has read so much will read on
	streamLeap  = 4 << 20   // and one that is known: with several reads in flight some come early, and some are not watched
	streamSoon  = 64 << 10  // reads of so many bytes make a stream when there are two in a row, others three
	nearby      = 1 << 20   // reads farther away from a stream do not belong to it
	overtaken   = 16        // reads that may be that many places late
	wasteMost   = 4         // halvings of windows

	strideCount = 8
	strideMost  = 64 << 20
	strideFirst = 2 // reads ahead at first
	strideReads = 32
	missedCount = 16
)

// Ahead is what a stream is about to read: Count ranges, each Every bytes
// behind the one before; before it, if that is negative.
type Ahead struct {
	First block.Range
	Every int64
	Count int
}

// Streams finds sequential readers among interleaved reads, forward, backward
// and strided, and says what to fetch ahead of them. Commands of one
// stream may come in another order than they were sent. It allocates nothing
// and is not safe for parallel use.
type Streams struct {
	places   [streamCount]int64 // where streams are
	expected [strideCount]int64 // where strides go on; 0: nowhere
	streams  [streamCount]stream
	strides  [strideCount]stride
	missed   [missedCount]int64 // reads that belonged to nothing known and were not local
	misses   int
	clock    uint32
	most     int64 // no window is larger
	spare    int64 // what may be fetched ahead of streams that are not long
	full     int64 // what is under way when the link is full
	waste    uint  // windows are halved so often: streams end before their windows do
}

// stream is a reader that reads what follows, or what comes before.
type stream struct {
	start, end int64 // of the foremost read
	top        int64 // where the first read ended
	direction  int8  // 0: not known yet
	reads      int32 // that went on where the one before was
	used       uint32

	window int64 // bytes to have fetched ahead; 0: it is no stream yet
	ahead  int64 // up to where that was done
	read   int64 // bytes in all
}

// stride is a reader that leaves out the same again and again.
type stride struct {
	last, n, every int64 // the last read, and how far it is to the next one
	ahead          int64 // the start of the last range fetched ahead
	reads          int64 // to fetch ahead
	used           uint32
}

// SetWindow says how large a window may be: a matter of the store's throughput
// and latency.
func (s *Streams) SetWindow(n int64) { s.most = min(max(n, streamMin), streamMost) }

// SetSpare says how much may be fetched ahead of streams, and how much is under
// way when the link is full.
func (s *Streams) SetSpare(spare, full int64) { s.spare, s.full = spare, full }

// Read tells of a read of n bytes at off; waited tells that it was not all
// local. If ok, a is to be fetched. It may lie beyond the end of the image.
//
// A stream begins with a read that waits: while all is local there is nothing
// to fetch. So most reads are compared with a place for each stream, and that is
// all.
func (s *Streams) Read(off, n int64, waited bool) (a Ahead, ok bool) {
	far := nearby + (overtaken+1)*n // no less than what continues allows
	for i := range s.places {
		if uint64(off-s.places[i]+far) > uint64(2*far) {
			continue
		}
		if a, ok, is := s.continues(&s.streams[i], off, n, waited); is {
			s.places[i] = s.streams[i].start
			return a, ok
		}
	}
	for i := range s.expected {
		if t := &s.strides[i]; s.expected[i] == off && t.every != 0 {
			s.clock++
			t.last, t.n, t.used = off, n, s.clock
			s.expected[i] = off + t.every
			return t.goOn(waited)
		}
	}
	if !waited {
		return Ahead{}, false
	}
	s.clock++
	if a, ok := s.findStride(off, n); ok {
		return a, true
	}
	s.begin(off, n)
	return Ahead{}, false
}

// continues tells whether a read belongs to a stream, and what to fetch then.
func (s *Streams) continues(t *stream, off, n int64, waited bool) (a Ahead, ok, is bool) {
	if t.reads == 0 {
		return Ahead{}, false, false
	}
	gap := min(2*n, streamGap)
	if t.window > 0 {
		gap = min(overtaken*n, streamLeap)
	}
	switch {
	case t.direction < 0 && off >= t.top && off-t.top <= max(gap, overtaken*n):
		t.direction, t.window = 1, 0 // reads that were in flight together came last first, again and again
	case t.direction >= 0 && off >= t.end && off-t.end <= gap:
		t.direction = 1
	case t.direction <= 0 && off+n <= t.start && t.start-off-n <= gap:
		t.direction = -1
	case t.window > 0 && off >= t.start-overtaken*n && off+n <= t.end+overtaken*n:
		s.clock++
		t.used = s.clock
		t.read += n
		return Ahead{}, false, true
	default:
		return Ahead{}, false, false
	}
	s.clock++
	t.start, t.end, t.used = off, off+n, s.clock
	t.reads++
	t.read += n
	if t.reads < 3 && (n < streamSoon || t.direction < 0) { // two commands may be out of order
		return Ahead{}, false, true
	}
	a, ok = s.goOn(t, waited)
	return a, ok, true
}

// begin takes a read for the first one of a stream, instead of what was used least
// recently.
func (s *Streams) begin(off, n int64) {
	oldest := 0
	for i := range s.streams {
		if t := &s.streams[i]; t.reads == 0 || int32(t.used-s.streams[oldest].used) < 0 && s.streams[oldest].reads != 0 {
			oldest = i
		}
	}
	if t := &s.streams[oldest]; t.window > 0 {
		s.judge(t)
	}
	s.places[oldest] = off
	s.streams[oldest] = stream{start: off, end: off + n, top: off + n, reads: 1, read: n, used: s.clock}
}

// judge learns from a stream that has ended.
func (s *Streams) judge(t *stream) {
	unused := t.ahead - t.end
	if t.direction < 0 {
		unused = t.start - t.ahead
	}
	switch {
	case unused > t.read:
		s.waste = min(s.waste+1, wasteMost)
	case unused < t.read/4 && s.waste > 0:
		s.waste--
	}
}

// goOn moves the window of a stream that has read on. Each is twice the one
// before, and twice that if it came too late, within bounds.
func (s *Streams) goOn(t *stream, waited bool) (a Ahead, ok bool) {
	most := s.most
	if most == 0 {
		most = streamUsual
	}
	most = max(most>>s.waste, streamMin)
	at := t.end
	if t.direction < 0 {
		at = t.start
	}
	left := (t.ahead - at) * int64(t.direction)
	if t.window == 0 || left < 0 {
		t.ahead, left = at, 0
	} else if waited {
		t.window *= 2 // it was fetched ahead, and not in time
	}
	if left > t.window-max(t.window/8, min(t.window/2, streamPiece)) {
		return Ahead{}, false
	}
	window := min(max(2*t.window, streamMin, 2*(t.end-t.start)), most, s.bound(t, left))
	if window <= left {
		return Ahead{}, false
	}
	t.window = window
	from := t.ahead
	if t.ahead = at + t.window*int64(t.direction); t.direction < 0 {
		t.ahead = max(t.ahead, 0)
	}
	r := block.Range{Off: from, End: t.ahead}
	if t.direction < 0 {
		r = block.Range{Off: t.ahead, End: from}
	}
	return Ahead{First: r, Count: 1}, !r.Empty()
}

// bound returns how large the window of a stream may be of which left bytes have
// not been read: as much as it has read, and half of what may be guessed, so
// that something is left for others. One that is long fills the link, in the end.
func (s *Streams) bound(t *stream, left int64) int64 {
	if s.spare == Unbounded {
		return Unbounded
	}
	return max(min(t.read, (left+s.spare)/2), min((t.read-streamLong)/2, s.full*5/2))
}

// findStride looks for two earlier reads from which it is as far to one
// another as to this one.
func (s *Streams) findStride(off, n int64) (a Ahead, ok bool) {
	count := min(s.misses, missedCount)
	for i := range count {
		every := off - s.missed[i]
		if every == 0 || every > strideMost || every < -strideMost {
			continue
		}
		for j := range count {
			if s.missed[j] != s.missed[i]-every {
				continue
			}
			oldest := 0
			for k := range s.strides {
				if int32(s.strides[k].used-s.strides[oldest].used) < 0 {
					oldest = k
				}
			}
			s.expected[oldest] = off + every
			s.strides[oldest] = stride{last: off, n: n, every: every, ahead: off, reads: strideFirst, used: s.clock}
			return s.strides[oldest].goOn(false)
		}
	}
	s.missed[s.misses%missedCount] = off
	s.misses++
	return Ahead{}, false
}

// goOn is that of a stream: its window is counted in reads.
func (t *stride) goOn(waited bool) (a Ahead, ok bool) {
	left := (t.ahead - t.last) / t.every
	if left < 0 {
		t.ahead, left = t.last, 0
	} else if waited && t.ahead != t.last {
		t.reads = min(2*t.reads, strideReads)
	}
	if left > t.reads/2 {
		return Ahead{}, false
	}
	first := t.ahead + t.every
	count := t.reads - left
	t.ahead += count * t.every
	t.reads = min(2*t.reads, strideReads)
	return Ahead{First: block.Range{Off: first, End: first + t.n}, Every: t.every, Count: int(count)}, true
}
