package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// A load is what a client does to a logical unit.
type load struct {
	Write  bool          `json:"write"`
	Reads  int           `json:"reads"`  // of a hundred commands of a load that writes, so many read
	Random bool          `json:"random"` // each offset anew; else ascending, from a start that Seed chooses
	Once   bool          `json:"once"`   // every block of the unit once, in scattered order, instead of Random and Time
	Size   int           `json:"size"`   // bytes per command
	Depth  int           `json:"depth"`  // commands in flight
	Time   time.Duration `json:"time"`   // how long
	Flush  int           `json:"flush"`  // SYNCHRONIZE CACHE after so many writes, 0: never
	Limit  int64         `json:"limit"`  // commands at most, 0: no limit
	Seed   uint64        `json:"seed"`

	Digests bool `json:"digests"` // CRC32C of header and data
	Clients int  `json:"clients"` // initiators at once, each with all of the above; 0: one
}

// A result is what a load has measured.
type result struct {
	Ops   int64         `json:"ops"`   // reads or writes that ended well
	Time  time.Duration `json:"time"`  // from the first command to the last answer
	Flush time.Duration `json:"flush"` // the median time of a SYNCHRONIZE CACHE
	CPU   time.Duration `json:"cpu"`   // the server's user and system time, filled in by the parent
}

func (r result) rate() float64 { return float64(r.Ops) / r.Time.Seconds() }

func (r result) cpuPerOp() time.Duration { return r.CPU / time.Duration(max(r.Ops, 1)) }

// run puts l on the unit that c is logged in to.
func (l load) run(c *client) (result, error) {
	size, err := c.prepare()
	if err != nil {
		return result{}, err
	}
	blocks := size / int64(l.Size)
	c.data = make([]byte, l.Size)
	rng := l.Seed*2 + 1
	for i := 0; i < len(c.data); i += 8 {
		binary.LittleEndian.PutUint64(c.data[i:], xorshift(&rng))
	}
	at := int64(xorshift(&rng) % uint64(blocks)) // the block of the next command
	step := scatter(blocks)
	if l.Once && (l.Limit == 0 || l.Limit > blocks) {
		l.Limit = blocks
	}

	var (
		res     result
		flushes []time.Duration
		sent    int64
		stop    = time.Now().Add(l.Time)
		begin   = time.Now()
	)
	more := func() bool {
		if l.Limit > 0 && sent >= l.Limit {
			return false
		}
		return l.Once || sent&15 != 0 || time.Now().Before(stop)
	}
	issue := func(tag uint32) {
		switch {
		case l.Once:
			at = (at + step) % blocks
		case l.Random:
			at = int64(xorshift(&rng) % uint64(blocks))
		default:
			at = (at + 1) % blocks
		}
		write := l.Write && (l.Reads == 0 || xorshift(&rng)%100 >= uint64(l.Reads))
		if write {
			binary.LittleEndian.PutUint64(c.data, xorshift(&rng))
		}
		c.command(tag, rw16(write, at*int64(l.Size), l.Size), l.Size, write)
		sent++
	}
	var idle []uint32 // tags
	for tag := range uint32(l.Depth) {
		idle = append(idle, tag)
	}
	left := l.Flush
	for {
		for len(idle) > 0 && c.window() && (l.Flush == 0 || left > 0) && more() {
			issue(idle[len(idle)-1])
			idle = idle[:len(idle)-1]
			left--
		}
		if len(idle) == l.Depth { // nothing in flight
			if l.Flush > 0 && left <= 0 {
				start := time.Now()
				c.command(0, cdb(0x35, 10), 0, false) // SYNCHRONIZE CACHE(10)
				if err := c.flushWait(); err != nil {
					return res, err
				}
				flushes = append(flushes, time.Since(start))
				left = l.Flush
				continue
			}
			break
		}
		tag, status, err := c.complete()
		if err == nil && status != 0 {
			err = fmt.Errorf("SCSI status %#x", status)
		}
		if err != nil {
			return res, err
		}
		res.Ops++
		idle = append(idle, tag)
	}
	res.Time = time.Since(begin)
	if len(flushes) > 0 {
		slices.Sort(flushes)
		res.Flush = flushes[len(flushes)/2]
	}
	return res, nil
}

// prepare clears unit attentions and returns the capacity in bytes.
func (c *client) prepare() (int64, error) {
	for try := 0; ; try++ {
		c.command(0, cdb(0x00, 6), 0, false) // TEST UNIT READY
		err := c.flushWait()
		if err == nil {
			break
		}
		if try == 5 {
			return 0, fmt.Errorf("test unit ready: %w", err)
		}
	}
	capacity := cdb(0x9e, 16)
	capacity[1], capacity[13] = 0x10, 32 // READ CAPACITY(16)
	c.command(0, capacity, 32, false)
	for {
		h, data, err := c.next()
		if err != nil {
			return 0, fmt.Errorf("read capacity: %w", err)
		}
		switch {
		case h[0]&0x3f == opDataIn && len(data) >= 12:
			n := int64(binary.BigEndian.Uint64(data)+1) * int64(binary.BigEndian.Uint32(data[8:]))
			if h[1]&1 == 0 { // status comes by itself
				_, _, err = c.complete()
			}
			return n, err
		case h[0]&0x3f == opResponse:
			return 0, fmt.Errorf("read capacity: status %#x", h[3])
		}
	}
}

// flushWait sends the queue and waits for the one command in flight.
func (c *client) flushWait() error {
	_, status, err := c.complete()
	if err == nil && status != 0 {
		err = fmt.Errorf("SCSI status %#x", status)
	}
	return err
}

func cdb(op byte, n int) []byte {
	b := make([]byte, n)
	b[0] = op
	return b
}

// rw16 returns READ(16) or WRITE(16), SBC-4 5.16 and 5.44.
func rw16(write bool, off int64, n int) []byte {
	b := cdb(0x88, 16)
	if write {
		b[0] = 0x8a
	}
	binary.BigEndian.PutUint64(b[2:], uint64(off/512))
	binary.BigEndian.PutUint32(b[10:], uint32(n/512))
	return b
}

// scatter returns a step that visits all of n blocks before it comes back to
// the first, in an order without neighbours.
func scatter(n int64) int64 {
	for step := n*618/1000 | 1; ; step += 2 {
		if gcd(step, n) == 1 {
			return step % n
		}
	}
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// xorshift returns the next number of a sequence that starts with *s, not 0.
func xorshift(s *uint64) uint64 {
	x := *s
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*s = x
	return x
}
