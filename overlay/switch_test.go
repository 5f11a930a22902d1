package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// memLayer is a layer in memory.
func memLayer(t testing.TB, id uint64, size int64) *Layer {
	t.Helper()
	l, err := OpenLayer(LayerConfig{Name: fmt.Sprint(id), ID: id, Size: size, File: newMemFile(block.Ceil(size, block.Size)), Map: &memMap{},
		Notes: newMemFile(NotesSize(size)), Boot: "boot", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLayers does random operations on volumes that are snapshotted, rolled
// back, cloned and resized, merges and thins layers, and compares with arrays:
// the volumes after each operation, the snapshots at times.
func TestLayers(t *testing.T) {
	for _, imageSize := range []int64{0, 40*block.Size + 512} {
		t.Run(fmt.Sprint(imageSize), func(t *testing.T) { testLayers(t, imageSize) })
	}
}

type layered struct {
	v      *Volume
	layers []*Layer // the last one is written to
	model  []byte
}

func testLayers(t *testing.T, imageSize int64) {
	ctx := t.Context()
	rnd := rand.New(rand.NewPCG(devicetest.Seed(t), 5))
	var c *Cache
	image := pattern(imageSize)
	if imageSize > 0 {
		var err error
		c, err = OpenCache(CacheConfig{Name: "image", Image: memdev.Of(image), File: newMemFile(block.Ceil(imageSize, block.Size)), Map: &memMap{}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	ids := uint64(0)
	layer := func(size int64) *Layer { ids++; return memLayer(t, ids, size) }
	least := max(imageSize, 512)
	const size = 60*block.Size + 1024
	open := func(layers []*Layer, size int64, model []byte) *layered {
		layers = append(layers[:len(layers):len(layers)], layer(size))
		v, err := Open(Config{Name: "v", Size: size, Layers: layers, Base: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return &layered{v, layers, bytes.Clone(model)}
	}
	first := append(bytes.Clone(image), make([]byte, size-imageSize)...)
	vols := []*layered{open(nil, size, first), open(nil, size, first)}
	type snapshot struct {
		layers []*Layer
		model  []byte
	}
	var snaps []*snapshot
	check := func(what string, v *Volume, model []byte) {
		t.Helper()
		got := make([]byte, len(model))
		if err := v.ReadAt(ctx, got, 0); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for b := 0; b < len(got); b += 512 {
			if !bytes.Equal(got[b:b+512], model[b:b+512]) {
				t.Fatalf("%s: sector %d differs", what, b/512)
			}
		}
		s := v.Stats()
		if sum := s.Owned + s.Zero + s.Cached + s.Absent; sum != block.Ceil(v.Size(), block.Size) {
			t.Fatalf("%s: %+v of %d", what, s, v.Size())
		}
	}
	// only tells whether m is what lies above l everywhere.
	only := func(l, m *Layer) (only bool) {
		look := func(layers []*Layer) {
			for i, x := range layers {
				if x == l && (i+1 == len(layers) || layers[i+1] != m) {
					only = false
				}
			}
		}
		only = true
		for _, x := range vols {
			look(x.layers)
		}
		for _, s := range snaps {
			look(s.layers)
		}
		return only
	}
	merges, shadows := 0, 0
	for step := range 2000 {
		i := rnd.IntN(len(vols))
		x := vols[i]
		y := vols[rnd.IntN(len(vols))]
		n := int64(len(x.model))
		off := rnd.Int64N(n)
		end := min(n, off+1+rnd.Int64N(10*block.Size))
		if rnd.IntN(3) == 0 {
			r := block.Range{Off: off, End: end}.Outward(block.Size)
			off, end = r.Off, min(n, r.End)
		}
		var err error
		what := ""
		switch op := rnd.IntN(25); {
		case op < 7:
			what = fmt.Sprintf("write [%d,%d)", off, end)
			p := bytes.Repeat([]byte{byte(step%255 + 1)}, int(end-off))
			copy(x.model[off:], p)
			err = x.v.WriteAt(ctx, p, off)
		case op < 9:
			what = fmt.Sprintf("discard [%d,%d)", off, end)
			clear(x.model[off:end])
			err = x.v.Discard(ctx, off, end-off)
		case op < 10:
			what = "update"
			err = x.v.Update(ctx, make([]byte, end-off), off, func(p []byte) (bool, error) {
				for i := range p {
					p[i]++
					x.model[off+int64(i)]++
				}
				return true, nil
			})
		case op < 12:
			what = "copy"
			if end = min(end, int64(len(y.model))); off < end {
				copy(x.model[off:end], y.model[off:end])
				_, err = x.v.CopyFrom(ctx, off, y.v, off, end-off)
			}
		case op < 13:
			what = "flush"
			err = x.v.Flush(ctx)
		case op < 15:
			what = "snapshot"
			steps, named := []Step{}, []*layered{x}
			if rnd.IntN(2) == 0 && y != x {
				named = append(named, y)
			}
			for _, x := range named {
				steps = append(steps, Step{x.v, layer(int64(len(x.model)))})
			}
			if _, err = Switch(steps); err != nil {
				break
			}
			for i, x := range named {
				if rnd.IntN(3) > 0 && err == nil {
					err = x.layers[len(x.layers)-1].Seal(ctx)
				}
				if len(snaps) > 8 {
					snaps = slices.Delete(snaps, 0, 1)
				}
				snaps = append(snaps, &snapshot{x.layers[:len(x.layers):len(x.layers)], bytes.Clone(x.model)})
				x.layers = append(x.layers[:len(x.layers):len(x.layers)], steps[i].Top)
			}
		case op < 16 && len(snaps) > 0:
			what = "roll back"
			s := snaps[rnd.IntN(len(snaps))]
			x.model = bytes.Clone(s.model)
			x.layers = append(s.layers[:len(s.layers):len(s.layers)], layer(int64(len(s.model))))
			err = x.v.Rebase(ctx, x.layers, int64(len(s.model)))
		case op < 17 && len(snaps) > 0:
			what = "clone"
			s := snaps[rnd.IntN(len(snaps))]
			if len(vols) < 4 {
				vols = append(vols, open(s.layers, int64(len(s.model)), s.model))
			} else if i > 0 {
				if err = x.v.Close(); err == nil {
					vols[i] = open(s.layers, int64(len(s.model)), s.model)
				}
			}
		case op < 20 && len(snaps) > 3:
			what = "delete"
			j := rnd.IntN(len(snaps))
			snaps = slices.Delete(snaps, j, j+1)
		case op < 22:
			what = "resize"
			to := least + rnd.Int64N(100)*1024
			if err = x.v.Resize(ctx, to); err == nil {
				x.model = append(x.model[:min(n, to):min(n, to)], make([]byte, max(0, to-n))...)
			}
		default:
			var open []*Volume
			for _, x := range vols {
				open = append(open, x.v)
			}
			for j := rnd.IntN(len(x.layers)); j+1 < len(x.layers); j++ {
				lower, upper := x.layers[j], x.layers[j+1]
				if !only(lower, upper) {
					continue
				}
				if j+2 == len(x.layers) {
					what = "shadow"
					shadows++
					_, err = Shadow(ctx, lower, upper, open)
					break
				}
				what = "merge"
				merges++
				var gone *Layer
				err = Merge(ctx, lower, upper, func(k, g *Layer) ([]*Volume, error) {
					if rnd.IntN(4) == 0 {
						return nil, context.DeadlineExceeded
					}
					gone = g
					return open, nil
				})
				if gone == nil {
					err = nil
					break
				}
				drop := func(layers []*Layer) (left []*Layer) {
					for _, l := range layers {
						if l != gone {
							left = append(left, l)
						}
					}
					return left
				}
				for _, x := range vols {
					x.layers = drop(x.layers)
				}
				for _, s := range snaps {
					s.layers = drop(s.layers)
				}
				if err == nil {
					err = gone.Close()
				}
				break
			}
		}
		if err != nil {
			t.Fatalf("step %d, %s: %v", step, what, err)
		}
		for j, x := range vols {
			check(fmt.Sprintf("step %d, %s of %d: volume %d", step, what, i, j), x.v, x.model)
		}
		if step%10 == 0 {
			for j, s := range snaps {
				clone := open(s.layers, int64(len(s.model)), s.model)
				check(fmt.Sprintf("step %d, %s of %d: snapshot %d", step, what, i, j), clone.v, clone.model)
				if err := errors.Join(clone.v.Close(), clone.v.top().Close()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("%d merges, %d shadows, %d layers", merges, shadows, ids)
	if merges == 0 || shadows == 0 {
		t.Error("too few merges or shadows")
	}
	for _, x := range vols {
		if err := x.v.Close(); err != nil {
			t.Error(err)
		}
	}
}
