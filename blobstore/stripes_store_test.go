package blobstore_test

import (
	"log/slog"
	"os"
	"testing"

	"skylun/blobstore"
	"skylun/blobstore/storetest"
)

// inStripes is a place whose images are striped.
type inStripes struct {
	storetest.Place
	striping blobstore.Striping
}

func (p inStripes) Striping() blobstore.Striping { return p.striping }

// Put makes a striped image of what can be one.
func (p inStripes) Put(t *testing.T, name string, content []byte) {
	t.Helper()
	if len(content) == 0 || blobstore.CheckName(name) != nil {
		p.Place.Put(t, name, content)
		return
	}
	s, err := blobstore.Open(t.Context(), p.Config(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = blobstore.PutStriped(t.Context(), s, func(name string, content []byte) { p.Place.Put(t, name, content) }, name, content, p.striping)
	if err != nil {
		t.Fatal(err)
	}
}

// A striped image is an image like any other.
func TestStripedFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Place {
		return inStripes{newDirectory(t), blobstore.Striping{Parts: 3, Size: 64 << 10}}
	})
}

func TestStripedAzure(t *testing.T) {
	if os.Getenv(azuriteEnv) == "" {
		t.Skipf("%s is not set", azuriteEnv)
	}
	storetest.Run(t, func(t *testing.T) storetest.Place {
		return inStripes{newAzurite(t), blobstore.Striping{Parts: 3, Size: 64 << 10}}
	})
}
