package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"skylun/block"
)

// A volume is read in pieces, some of them at once, because what is not local
// comes from far away.
const (
	readPiece = 1 << 20
	readAhead = 8
)

// ReadVolume calls f with the content of a volume, in ascending order; what no
// call covers reads as zeros. p is valid during the call. While an initiator
// writes to the volume, what is read is not its content at one moment.
func (n *Node) ReadVolume(ctx context.Context, name string, f func(p []byte, off int64) error) (err error) {
	v, err := n.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.release(v)) }()
	return read(ctx, v, "volume "+name, f)
}

// ReadSnapshot is ReadVolume for what a snapshot holds, which is the content of
// a moment. Of a snapshot of several volumes, ref names one: NAME/VOLUME.
func (n *Node) ReadSnapshot(ctx context.Context, ref string, f func(p []byte, off int64) error) (err error) {
	v, err := n.useSnapshot(ctx, ref)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, n.release(v))
		n.clean.wake() // it may be removed by now
	}()
	return read(ctx, v, "snapshot "+ref, f)
}

func read(ctx context.Context, v *volume, what string, f func(p []byte, off int64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	type piece struct {
		p   []byte
		off int64
		err error
	}
	size := v.dev.Size()
	order := make(chan chan piece, readAhead)
	free := make(chan []byte, readAhead+2)
	for range cap(free) {
		free <- make([]byte, readPiece)
	}
	go func() {
		defer close(order)
		for off := int64(0); off < size; off += readPiece {
			var p []byte
			select {
			case p = <-free:
			case <-ctx.Done():
				return
			}
			p = p[:min(readPiece, size-off)]
			done := make(chan piece, 1)
			go func() { done <- piece{p, off, v.dev.ReadAt(ctx, p, off)} }()
			select {
			case order <- done:
			case <-ctx.Done():
				<-done
				return
			}
		}
	}()
	defer func() { // no read outlives the volume
		cancel()
		for done := range order {
			<-done
		}
	}()
	for done := range order {
		got := <-done
		if err := ctx.Err(); err != nil {
			return err
		}
		if got.err != nil {
			return fmt.Errorf("read %s at %d: %w", what, got.off, got.err)
		}
		if err := nonZero(got.p, got.off, f); err != nil {
			return err
		}
		free <- got.p[:readPiece]
	}
	return ctx.Err()
}

var zeros [block.Size]byte

// nonZero calls f for the runs of blocks of p that are not all zeros.
func nonZero(p []byte, off int64, f func(p []byte, off int64) error) error {
	start := -1
	for i := 0; ; i += block.Size {
		end := min(i+block.Size, len(p))
		empty := i >= len(p) || bytes.Equal(p[i:end], zeros[:end-i])
		switch {
		case empty && start >= 0:
			if err := f(p[start:min(i, len(p))], off+int64(start)); err != nil {
				return err
			}
			start = -1
		case !empty && start < 0:
			start = i
		}
		if i >= len(p) {
			return nil
		}
	}
}
