//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"skylun/test/azurite"
)

// store is a blob store as the test sees it.
type store interface {
	config() string                    // the lines of the configuration's section "blobstore"
	reads(s *server, image string) int // requests so far for bytes of an image
	stored() int64                     // bytes of content stored so far, those of unfinished imports included
	put(name, file string)             // store a file as a blob, past the server
	get(name string, w io.Writer)      // read a blob, past the server
	leave()                            // become unreachable
	comeBack()
}

// eachStore runs a test over each kind of store.
func eachStore(t *testing.T, f func(t *testing.T, st store)) {
	t.Run("file", func(t *testing.T) { f(t, newFileStore(t)) })
	t.Run("azurite", func(t *testing.T) { f(t, newAzureStore(t)) })
}

type fileStore struct {
	t   *testing.T
	dir string
}

func newFileStore(t *testing.T) *fileStore {
	st := &fileStore{t, filepath.Join(t.TempDir(), "blobs")}
	if err := os.Mkdir(st.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return st
}

func (st *fileStore) config() string { return "url: file:" + st.dir }

func (st *fileStore) reads(s *server, image string) int {
	n := 0
	for _, c := range s.ask().Caches {
		if c.Image == image {
			n += int(c.Fetches)
		}
	}
	return n
}

func (st *fileStore) stored() int64 {
	var n int64
	filepath.WalkDir(st.dir, func(name string, d fs.DirEntry, err error) error {
		var stat syscall.Stat_t
		if err == nil && d.Type().IsRegular() && syscall.Stat(name, &stat) == nil {
			n += stat.Blocks * 512
		}
		return nil
	})
	return n
}

func (st *fileStore) put(name, file string) {
	st.t.Helper()
	// As cp would, and not as the server itself would: in place.
	tool(st.t, "cp", file, filepath.Join(st.dir, name))
}

func (st *fileStore) get(name string, w io.Writer) {
	st.t.Helper()
	f, err := os.Open(filepath.Join(st.dir, name))
	if err != nil {
		st.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		st.t.Fatal(err)
	}
}

func (st *fileStore) leave() {
	if err := os.Rename(st.dir, st.dir+".away"); err != nil {
		st.t.Fatal(err)
	}
}

func (st *fileStore) comeBack() {
	if err := os.Rename(st.dir+".away", st.dir); err != nil {
		st.t.Fatal(err)
	}
}

type azureStore struct {
	t         *testing.T
	server    *azurite.Server
	proxy     *azurite.Proxy
	container string
	creds     string // file with the connection string
}

var containers atomic.Int64

// newAzureStore returns a container, which does not exist yet, of the shared
// Azurite.
func newAzureStore(t *testing.T) *azureStore {
	server, err := sharedAzurite()
	if err != nil {
		t.Fatal(err)
	}
	return azureStoreOn(t, server)
}

// newOwnAzureStore is newAzureStore with an Azurite of its own, for tests that
// stop it.
func newOwnAzureStore(t *testing.T) *azureStore {
	server, err := azurite.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return azureStoreOn(t, server)
}

func azureStoreOn(t *testing.T, server *azurite.Server) *azureStore {
	proxy, err := azurite.NewProxy(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	st := &azureStore{t, server, proxy, fmt.Sprintf("e2e-%d", containers.Add(1)), filepath.Join(t.TempDir(), "connection-string")}
	if err := os.WriteFile(st.creds, []byte(proxy.ConnectionString()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return st
}

func (st *azureStore) config() string {
	return fmt.Sprintf("url: %s\nconnection_string_file: %s", st.proxy.URL(st.container), st.creds)
}

func (st *azureStore) reads(_ *server, image string) int {
	return st.proxy.Reads("/" + st.container + "/" + image)
}

func (st *azureStore) stored() int64 { return st.proxy.Stored() }

func (st *azureStore) put(name, file string) {
	st.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		st.t.Fatal(err)
	}
	defer f.Close()
	if err := st.server.Put(st.t.Context(), st.container, name, f); err != nil {
		st.t.Fatal(err)
	}
}

func (st *azureStore) get(name string, w io.Writer) {
	st.t.Helper()
	if err := st.server.Get(st.t.Context(), st.container, name, w); err != nil {
		st.t.Fatal(err)
	}
}

func (st *azureStore) leave() { st.server.Stop() }

func (st *azureStore) comeBack() {
	if err := st.server.Restart(); err != nil {
		st.t.Fatal(err)
	}
}
