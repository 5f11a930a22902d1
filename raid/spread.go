package raid

import (
	"errors"
	"sync"
)

// A request that lies on one member is done by its caller, without a goroutine
// and without memory of its own. One that lies on several is split once: the
// caller does the part of the first member, goroutines those of the others, each
// all that lies on its member, in order.

type direction bool

const (
	reading direction = false
	writing direction = true
)

func (d direction) do(p *part, b []byte, off int64) error {
	if d == writing {
		return p.write(b, off)
	}
	return p.read(b, off)
}

// work is what one member has to do of a request.
type work struct {
	part *part
	runs []run
	err  error
}

type run struct {
	at int64 // in the piece
	b  []byte
}

// request is a request that was split.
type request struct {
	works []work
	wait  sync.WaitGroup
}

var requests = sync.Pool{New: func() any { return new(request) }}

// add appends b to what has to be done on p.
func (r *request) add(p *part, at int64, b []byte) {
	for i := range r.works {
		if r.works[i].part == p {
			r.works[i].runs = append(r.works[i].runs, run{at, b})
			return
		}
	}
	if len(r.works) < cap(r.works) {
		r.works = r.works[:len(r.works)+1] // with the memory of an earlier one's runs
	} else {
		r.works = append(r.works, work{})
	}
	w := &r.works[len(r.works)-1]
	w.part, w.err = p, nil
	w.runs = append(w.runs[:0], run{at, b})
}

// spread reads or writes b at off. The caller is inside the gate.
func (f *body) spread(d direction, b []byte, off int64) error {
	p, at, n := f.where(off)
	if n >= int64(len(b)) {
		return d.do(p, b, at)
	}
	r := requests.Get().(*request)
	for len(b) > 0 {
		p, at, n := f.where(off)
		n = min(n, int64(len(b)))
		r.add(p, at, b[:n:n])
		b, off = b[n:], off+n
	}
	r.wait.Add(len(r.works) - 1)
	for i := range r.works[1:] {
		w := &r.works[1+i]
		go func() {
			defer r.wait.Done()
			w.do(d)
		}()
	}
	r.works[0].do(d)
	r.wait.Wait()
	var err error
	for i := range r.works {
		w := &r.works[i]
		err = errors.Join(err, w.err)
		clear(w.runs) // keeps nobody's buffers
		w.part, w.err = nil, nil
	}
	r.works = r.works[:0]
	requests.Put(r)
	return err
}

func (w *work) do(d direction) {
	for _, run := range w.runs {
		if err := d.do(w.part, run.b, run.at); err != nil {
			w.err = err
			return
		}
	}
}
