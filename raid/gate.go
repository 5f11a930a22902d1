package raid

import (
	"sync"
	"sync/atomic"
	"time"
)

// gate is a lock for something that everybody uses and that hardly ever changes. To
// pass costs two atomic additions, which count who is inside as well; who shuts
// it waits until nobody is.
//
// Who enters first counts itself and then looks whether it is shut; who shuts it says
// so first and then looks who is inside. So one of them sees the other.
type gate struct {
	inside atomic.Int64
	shut   atomic.Bool
	mu     sync.Mutex // held while it is shut
}

// tryEnter enters unless the gate is shut.
func (g *gate) tryEnter() bool {
	g.inside.Add(1)
	if !g.shut.Load() {
		return true
	}
	g.inside.Add(-1)
	return false
}

// enter waits until the gate is not shut, and enters.
func (g *gate) enter() {
	if g.tryEnter() {
		return
	}
	g.mu.Lock() // whoever shuts it holds that
	g.inside.Add(1)
	g.mu.Unlock()
}

func (g *gate) leave() { g.inside.Add(-1) }

// close shuts the gate and returns when nobody is inside.
func (g *gate) close() {
	g.mu.Lock()
	g.shut.Store(true)
	for g.inside.Load() > 0 { // as long as their I/O takes
		time.Sleep(20 * time.Microsecond)
	}
}

func (g *gate) open() {
	g.shut.Store(false)
	g.mu.Unlock()
}
