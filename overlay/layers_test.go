package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// TestVolumeOverLayers runs the contract of devices over many layers, with an
// image below and without: what they hold is written so that each layer hides
// some of what is older, with data or as zeros.
func TestVolumeOverLayers(t *testing.T) {
	const size, imageSize = 3<<20 + 512, 2<<20 + 1536
	for _, count := range []int{1, 3, 64} {
		for _, withImage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%v", count, withImage), func(t *testing.T) {
				devicetest.Run(t, func(t *testing.T) devicetest.Subject {
					return overLayers(t, size, imageSize, count, withImage)
				})
			})
		}
	}
}

func overLayers(t *testing.T, size, imageSize int64, count int, withImage bool) devicetest.Subject {
	files, states := make([]*memFile, count), make([]*memMap, count)
	for i := range files {
		files[i], states[i] = newMemFile(block.Ceil(size, block.Size)), &memMap{}
	}
	content := make([]byte, size)
	image := pattern(imageSize)
	if withImage {
		copy(content, image)
	}
	var c *Cache
	var v *Volume
	layer := func(i int, sealed bool) *Layer {
		l, err := OpenLayer(LayerConfig{Name: fmt.Sprint(i), Size: size, File: files[i], Map: states[i], Sealed: sealed, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	open := func(layers ...*Layer) {
		var err error
		if withImage {
			c, err = OpenCache(CacheConfig{Name: "image", Image: memdev.Of(image), File: newMemFile(block.Ceil(imageSize, block.Size)), Map: &memMap{}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
		}
		if v, err = Open(Config{Name: "v", Size: size, Layers: layers, Base: c, Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
	}
	stop := func(t *testing.T) {
		err := closeAll(v)
		if c != nil {
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}
	open(layer(0, false))
	for i := 1; i < count; i++ {
		for b := int64(i) * 37; b < size/block.Size; b += 11 + int64(count) { // each in other places, some again
			off := b * block.Size
			var err error
			if (b+int64(i))%5 == 0 {
				clear(content[off : off+block.Size])
				err = v.Discard(t.Context(), off, block.Size)
			} else {
				p := bytes.Repeat([]byte{byte(i), byte(b), 3}, 2000)[:block.Size]
				copy(content[off:], p)
				err = v.WriteAt(t.Context(), p, off)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Switch([]Step{{v, layer(i, false)}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { stop(t) })
	return devicetest.Subject{Device: v, Content: content, Reopen: func(t *testing.T) block.Device {
		stop(t)
		var layers []*Layer
		for i := range count {
			layers = append(layers, layer(i, i+1 < count))
		}
		open(layers...)
		return v
	}}
}
