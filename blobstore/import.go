package blobstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// ImportOptions says how to import. The zero value is good.
type ImportOptions struct {
	// Format is what the source must be. Empty: whatever it is.
	Format Format

	// Parallel is how many writes are in flight. 0: a good number.
	Parallel int

	// Striping lays the image over several objects.
	Striping Striping

	// Checkpoint is how many bytes are stored between two checkpoints: about
	// what a killed import has to do again. 0: a good number.
	Checkpoint int64

	// Progress, when set, is told how many of total bytes are done, skipped
	// ones and those of an earlier run included. Calls do not overlap and
	// done never falls.
	Progress func(done, total int64)
}

const (
	importChunk      = 4 << 20 // the most a page blob takes in one write
	importParallel   = 8
	importCheckpoint = 64 << 20

	// How long an import that was cancelled may take to say how far it got.
	lastWords = 5 * time.Second
)

// Import copies the file or block device src into the store as the image name,
// which must be free: a raw disk, a fixed VHD (with its footer) or an ISO. What
// is zero in src is not sent.
//
// The image appears when it is complete. An import that failed, was cancelled
// or was killed leaves nothing visible; the same call again goes on where it
// stopped, unless src was changed since. Delete drops what it left.
//
// Errors: ErrExists, ErrBusy (another import to that name), ErrFormat,
// ErrChanged (src was written to meanwhile), ErrName, those of the source, and
// those of the store.
func Import(ctx context.Context, s Store, src, name string, opts ImportOptions) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	if err := opts.Striping.Validate(); err != nil {
		return Info{}, err
	}
	source, err := openSource(ctx, src, name, opts.Format)
	if err != nil {
		return Info{}, err
	}
	defer source.f.Close()
	u, err := s.CreateStriped(ctx, name, block.Ceil(source.size, sector), source.id, opts.Striping)
	if err != nil {
		return Info{}, fmt.Errorf("import %s: %w", src, err)
	}
	defer u.Close()
	if err := copySource(ctx, u, source, opts); err != nil {
		return Info{}, fmt.Errorf("import %s: %w (import it again to go on, remove image %s to drop what is stored)", src, err, name)
	}
	if err := source.unchanged(); err != nil {
		u.Abort(ctx) // what is there belongs to no content
		return Info{}, fmt.Errorf("import %s: %w", src, err)
	}
	info, err := u.Commit(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("import %s: %w", src, err)
	}
	return info, nil
}

// copySource writes what source has from the upload's last checkpoint on,
// several chunks at a time.
func copySource(ctx context.Context, u Upload, source *source, opts ImportOptions) error {
	parallel := opts.Parallel
	if parallel <= 0 {
		parallel = importParallel
	}
	t := newTracker(u, source.size, opts)
	buffers := make(chan []byte, parallel)
	for range parallel {
		buffers <- nil // made when needed
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	err := source.chunks(u.Stored(), func(r block.Range) error {
		if gctx.Err() != nil {
			return gctx.Err()
		}
		c := t.begin(r)
		g.Go(func() error {
			buf := <-buffers
			if buf == nil {
				buf = make([]byte, importChunk)
			}
			defer func() { buffers <- buf }()
			// Up to a whole sector: what is beyond the end is zeros.
			p := buf[:block.Ceil(r.Len(), sector)]
			if err := source.read(p, r); err != nil {
				return err
			}
			if err := u.WriteAt(gctx, p, r.Off); err != nil {
				return err
			}
			return t.end(gctx, c)
		})
		return nil
	})
	if e := g.Wait(); e != nil {
		err = e // the cause: the other is that gctx has ended
	}
	if err == nil {
		t.finish()
		return nil
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if e := t.checkpoint(stop, 0); e != nil {
		return fmt.Errorf("%w (what was stored after the last checkpoint is sent again next time: %v)", err, e)
	}
	return err
}

// tracker knows up to where everything is stored, though chunks are stored in
// any order.
type tracker struct {
	u        Upload
	total    int64
	every    int64
	progress func(done, total int64)

	saving sync.Mutex // held for a checkpoint; before mu

	mu    sync.Mutex
	open  []*chunk // begun, in order of offsets, the first not done
	low   int64    // [0, low) is stored
	saved int64    // the last checkpoint
	done  int64    // bytes stored or skipped
	next  int64    // where the next chunk can begin
}

type chunk struct {
	block.Range
	done bool
}

func newTracker(u Upload, total int64, opts ImportOptions) *tracker {
	t := &tracker{u: u, total: total, every: opts.Checkpoint, progress: opts.Progress}
	if t.every <= 0 {
		// Each part takes a request.
		t.every = importCheckpoint * max(1, int64(opts.Striping.Parts))
	}
	if t.progress == nil {
		t.progress = func(int64, int64) {}
	}
	t.low = min(u.Stored(), total)
	t.saved, t.done, t.next = t.low, t.low, t.low
	t.progress(t.done, total)
	return t
}

// begin notes that r is being stored and that all between the chunk before and
// r is zeros. Chunks begin in order.
func (t *tracker) begin(r block.Range) *chunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &chunk{Range: r}
	t.done += r.Off - t.next
	t.next = r.End
	if len(t.open) == 0 {
		t.low = r.Off
	}
	t.open = append(t.open, c)
	return c
}

// end notes that c is stored, and saves a checkpoint when one is due.
func (t *tracker) end(ctx context.Context, c *chunk) error {
	t.mu.Lock()
	c.done = true
	t.done += c.Len()
	for len(t.open) > 0 && t.open[0].done {
		t.low = t.open[0].End
		t.open = t.open[1:]
		if len(t.open) > 0 {
			t.low = t.open[0].Off
		}
	}
	due := t.low-t.saved >= t.every
	t.mu.Unlock()
	if due && t.saving.TryLock() { // else somebody does already
		err := t.checkpointLocked(ctx, t.every)
		t.saving.Unlock()
		if err != nil {
			return err
		}
	}
	t.report()
	return nil
}

// report tells the progress. The lock orders the calls.
func (t *tracker) report() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress(t.done, t.total)
}

// checkpoint saves how far all is stored, if that is least more than what was
// saved last.
func (t *tracker) checkpoint(ctx context.Context, least int64) error {
	t.saving.Lock()
	defer t.saving.Unlock()
	return t.checkpointLocked(ctx, least)
}

func (t *tracker) checkpointLocked(ctx context.Context, least int64) error {
	t.mu.Lock()
	low, saved := t.low, t.saved
	t.mu.Unlock()
	if low <= saved || low-saved < least {
		return nil
	}
	if err := t.u.Checkpoint(ctx, low); err != nil {
		return err
	}
	t.mu.Lock()
	t.saved = low
	t.mu.Unlock()
	return nil
}

// finish notes that what follows the last chunk is zeros.
func (t *tracker) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.low, t.done = t.total, t.total
	t.progress(t.done, t.total)
}
