package blobstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"skylun/blobstore"
	"skylun/blobstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.Child()
	os.Exit(m.Run())
}

// directory is a place for images that does not exist yet.
type directory string

func newDirectory(t *testing.T) storetest.Place {
	return directory(filepath.Join(t.TempDir(), "data", "blobs"))
}

func (d directory) Config() blobstore.Config { return blobstore.Config{URL: "file:" + string(d)} }

func (d directory) Put(t *testing.T, name string, content []byte) {
	t.Helper()
	path := filepath.Join(string(d), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) { storetest.Run(t, newDirectory) }
