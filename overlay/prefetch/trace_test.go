package prefetch

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"
)

// A trace is what a simulated node did, sample by sample.
type trace struct {
	title, text string
	every       time.Duration
	rows        []sample
	marks       []mark
}

type sample struct {
	fill, read float64 // MB/s
	window     float64 // MiB
	flight     float64 // MiB
	phase      string
	why        string
}

type mark struct {
	at   time.Duration
	text string
}

// record runs a simulation for d and looks every so often.
func (tr *trace) record(s *sim, d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		filled, read := s.filled, s.guestBytes
		s.run(tr.every)
		phase, window, flight := s.gov.State()
		rate := func(n int64) float64 { return float64(n) / tr.every.Seconds() / 1e6 }
		tr.rows = append(tr.rows, sample{rate(s.filled - filled), rate(s.guestBytes - read), float64(window) / mib, float64(flight) / mib, phase, s.why})
	}
}

func (tr *trace) mark(text string) {
	tr.marks = append(tr.marks, mark{time.Duration(len(tr.rows)) * tr.every, text})
}

func (tr *trace) table() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n%10s %8s %8s %8s %8s  %s\n", tr.title, "time", "fill", "readers", "window", "flight", "doing")
	m := 0
	for i, r := range tr.rows {
		at := time.Duration(i) * tr.every
		for ; m < len(tr.marks) && tr.marks[m].at <= at; m++ {
			fmt.Fprintf(&b, "# %s\n", tr.marks[m].text)
		}
		doing := r.phase
		if r.why != "" {
			doing += ": " + r.why
		}
		fmt.Fprintf(&b, "%10v %8.1f %8.1f %8.2f %8.2f  %s\n", at, r.fill, r.read, r.window, r.flight, doing)
	}
	return b.Bytes()
}

// plot draws the trace: rates above, the window below.
func (tr *trace) plot() []byte {
	const width, left, top, upper, lower, gap = 860, 56, 44, 190, 110, 46
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	height := top + upper + gap + lower + 40
	p(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`, width, height)
	p(`<rect width="100%%" height="100%%" fill="white"/>`)
	p(`<text x="%d" y="16" font-size="13" font-weight="bold">%s</text><text x="%d" y="32" fill="#555">%s</text>`, left, tr.title, left, tr.text)
	x := func(i int) float64 { return left + float64(width-left-16)*float64(i)/float64(len(tr.rows)) }
	area := func(y0, h int, unit string, series ...func(sample) float64) {
		most := 0.0
		for _, r := range tr.rows {
			for _, f := range series {
				most = max(most, f(r))
			}
		}
		step := math.Pow(10, math.Floor(math.Log10(max(most, 1e-9))))
		if most/step < 2 {
			step /= 2
		} else if most/step > 5 {
			step *= 2
		}
		most = max(step, math.Ceil(most/step)*step)
		for v := 0.0; v <= most+step/10; v += step {
			y := float64(y0+h) - float64(h)*v/most
			p(`<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%g</text>`, left, y, width-16, left-6, y+4, v)
		}
		p(`<text x="%d" y="%d" fill="#555">%s</text>`, left, y0-6, unit)
		for i, f := range series {
			fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="1.3" d="`, []string{"#0068c9", "#d1495b"}[i])
			for j, r := range tr.rows {
				c := 'L'
				if j == 0 {
					c = 'M'
				}
				fmt.Fprintf(&b, "%c%.1f %.1f", c, x(j), float64(y0+h)-float64(h)*f(r)/most)
			}
			p(`"/>`)
		}
	}
	area(top+14, upper, `MB/s: &#160;<tspan fill="#0068c9">fill</tspan>, <tspan fill="#d1495b">readers</tspan>`,
		func(s sample) float64 { return s.fill }, func(s sample) float64 { return s.read })
	area(top+upper+gap, lower, `MiB: &#160;<tspan fill="#0068c9">window</tspan>, <tspan fill="#d1495b">under way</tspan>`,
		func(s sample) float64 { return s.window }, func(s sample) float64 { return s.flight })
	for i, m := range tr.marks {
		at := x(int(m.at / tr.every))
		p(`<path d="M%.1f %dV%d" stroke="#888" stroke-dasharray="3 3"/><text x="%.1f" y="%d" fill="#333">%s</text>`, at, top+14, top+upper+gap+lower, at+3, top+26+i%3*13, m.text)
	}
	total := time.Duration(len(tr.rows)) * tr.every
	for i := range 11 {
		p(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%v</text>`, left+float64(width-left-16)*float64(i)/10, height-20, (total * time.Duration(i) / 10).Round(tr.every))
	}
	p(`</svg>`)
	return b.Bytes()
}

// TestTraces compares whole runs with what they were: a change of the governor
// shows in the difference. -update writes them and the plots anew.
func TestTraces(t *testing.T) {
	for name, run := range map[string]func(*trace){
		"hour": func(tr *trace) {
			tr.title, tr.every = "An hour of a node that fills an image (idle)", 10*time.Second
			tr.text = "Store: 15 ms, 60 MiB/s, 500 requests/s. Every mark is a change of what happens."
			s := newSim(11, stores["page blob"])
			s.fill = true
			tr.mark("alone")
			s.pump()
			tr.record(s, 8*time.Minute)
			tr.mark("a reader, every 2 s")
			stop := s.stopped(func() { s.reader(64<<10, s.exponential(2*time.Second)) })
			tr.record(s, 10*time.Minute)
			stop()
			tr.mark("four readers without a pause")
			stop = s.stopped(func() {
				for range 4 {
					s.reader(256<<10, func() time.Duration { return 0 })
				}
			})
			tr.record(s, 8*time.Minute)
			stop()
			tr.mark("alone")
			tr.record(s, 6*time.Minute)
			s.store.requests = 150
			tr.mark("150 requests/s allowed")
			tr.record(s, 8*time.Minute)
			s.store.requests = 500
			s.store.down = true
			tr.mark("store down")
			tr.record(s, 6*time.Minute)
			s.store.down = false
			tr.mark("back, 20 MiB/s")
			s.store.bandwidth = 20 * mib
			tr.record(s, 14*time.Minute)
		},
		"miss": func(tr *trace) {
			tr.title, tr.every = "A reader that has to wait, while an image is filled (idle)", 10*time.Millisecond
			tr.text = "Store: 20 ms, 200 MB/s. One read of 64 KiB at 1 s."
			s := newSim(4, stores["region"])
			s.fill = true
			s.pump()
			s.run(20 * time.Second)
			tr.mark("alone")
			tr.record(s, time.Second)
			tr.mark("a reader waits")
			s.miss(64<<10, func() {})
			tr.record(s, 3*time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := &trace{}
			began := time.Now()
			run(tr)
			t.Logf("%v of virtual time in %v", time.Duration(len(tr.rows))*tr.every, time.Since(began).Round(time.Millisecond))
			golden(t, filepath.Join("testdata", "traces", name+".golden"), tr.table())
			golden(t, filepath.Join("..", "..", "docs", "prefetch-"+name+".svg"), tr.plot())
		})
	}
}

// stopped runs readers until the function that it returns is called.
func (s *sim) stopped(begin func()) (stop func()) {
	over := false
	s.over = &over
	begin()
	s.over = nil
	return func() { over = true }
}

// TestBackOff sends nothing but a trickle from the moment on at which a reader
// waits, and what is under way is done within tens of milliseconds.
func TestBackOff(t *testing.T) {
	for name, st := range stores {
		s := newSim(9, st)
		s.fill = true
		s.pump()
		s.run(30 * time.Second)
		before := s.sent
		s.miss(64<<10, func() {})
		drained := time.Duration(0)
		for ; drained < time.Second; drained += time.Millisecond {
			if _, _, flight := s.gov.State(); flight == 0 {
				break
			}
			s.run(time.Millisecond)
		}
		_, quick := s.gov.Store()
		t.Logf("%-9s under way for %v after a reader began to wait, sent %d", name, drained, s.sent-before)
		if s.sent != before {
			t.Errorf("%s: sent %d fetches while a reader waits", name, s.sent-before)
		}
		if drained > 60*time.Millisecond+4*quick {
			t.Errorf("%s: fetches were under way for %v", name, drained)
		}
	}
}

// TestThrottled keeps below what the store allows, and finds out when it is more.
func TestThrottled(t *testing.T) {
	st := stores["region"]
	st.requests = 100
	s := newSim(2, st)
	s.fill = true
	s.pump()
	s.run(5 * time.Minute)
	early := s.store.throttled
	s.run(10 * time.Minute)
	late := s.store.throttled - early
	rate := float64(s.filled) / s.now.Sub(simStart).Seconds()
	t.Logf("%d refused in 5 minutes, then %d in 10; %.0f MB/s, fetches of %d KiB", early, late, rate/1e6, s.gov.FetchSize()>>10)
	if late > 100 {
		t.Errorf("%d requests were refused within 10 minutes", late)
	}
	if rate < 0.5*st.bandwidth {
		t.Errorf("%.0f MB/s of %.0f", rate/1e6, st.bandwidth/1e6)
	}
}

// TestNodesDoNotMarch has nodes that are stopped together start one by one.
func TestNodesDoNotMarch(t *testing.T) {
	starts := map[time.Duration]bool{}
	for seed := range uint64(8) {
		s := newSim(1, stores["region"])
		s.gov = NewGovernor(0, newSim(100+seed, store{}).fills)
		s.fill = true
		s.pump()
		s.run(10 * time.Second)
		s.gov.Throttled(s.now, s.now.Add(2*time.Second)) // all hear it at once
		for s.pump(); ; s.run(time.Millisecond) {
			if w := s.gov.May(s.now, Idle, 1); w.Now {
				break
			}
		}
		starts[s.now.Sub(simStart)/(20*time.Millisecond)] = true
	}
	if len(starts) < 5 {
		t.Errorf("eight nodes began again within %d different moments of 20 ms", len(starts))
	}
}

// TestBusyNode leaves the processor to those who read and write what is local.
func TestBusyNode(t *testing.T) {
	share := func(mode Mode, commands float64) float64 {
		s := newSim(6, stores["region"])
		s.fill, s.mode = true, mode
		s.pump()
		s.run(20 * time.Second)
		alone := s.filled
		s.commands = commands
		s.run(20 * time.Second)
		return float64(s.filled-alone) / float64(alone)
	}
	if f := share(Idle, 0.5*BusyRate); f < 0.9 {
		t.Errorf("a node that gets some commands fills at %.2f", f)
	}
	if f := share(Idle, 10*BusyRate); f > 0.3 || f < 0.02 {
		t.Errorf("a busy node fills at %.2f of what it can, want a little", f)
	}
	if f := share(Full, 10*BusyRate); f < 0.9 {
		t.Errorf("a busy node that is to fill fast fills at %.2f", f)
	}
}

// TestLocalDisk narrows the window while readers of local data get slower by
// fills, and does not for what they are like anyway.
func TestLocalDisk(t *testing.T) {
	for slower, want := range map[float64]bool{1.2: false, 5: true} {
		s := newSim(6, stores["region"])
		for range 50 {
			s.gov.Local(s.now, time.Millisecond)
		}
		s.fill = true
		s.pump()
		s.run(20 * time.Second)
		_, before, _ := s.gov.State()
		for range 20 {
			s.gov.Local(s.now, time.Duration(slower*float64(time.Millisecond)))
			s.run(20 * time.Millisecond)
		}
		_, after, _ := s.gov.State()
		if narrowed := after < before*3/4; narrowed != want {
			t.Errorf("readers are slower by %v: the window went from %d to %d", slower, before, after)
		}
	}
}
