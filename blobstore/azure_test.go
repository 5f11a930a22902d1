package blobstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"skylun/blobstore"
	"skylun/blobstore/storetest"
)

// azuriteEnv holds the connection string of an Azurite, or of an account that
// tests may fill with containers.
const azuriteEnv = "SKYLUN_TEST_AZURITE"

// azurite is a container that does not exist yet, and a prefix in it.
type azurite struct {
	client *container.Client
	cfg    blobstore.Config
	prefix string
}

func newAzurite(t *testing.T) storetest.Place {
	conn := os.Getenv(azuriteEnv)
	name := "t-" + strings.ToLower(rand.Text())
	client, err := container.NewClientFromConnectionString(conn, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := client.Delete(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerNotFound) {
			t.Error(err)
		}
	})
	file := t.TempDir() + "/connection"
	if err := os.WriteFile(file, []byte(conn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &azurite{
		client: client,
		cfg:    blobstore.Config{URL: client.URL() + "/some/prefix", ConnectionStringFile: file},
		prefix: "some/prefix/",
	}
}

func (a *azurite) Config() blobstore.Config { return a.cfg }

// Put makes a block blob.
func (a *azurite) Put(t *testing.T, name string, content []byte) {
	t.Helper()
	if _, err := a.client.Create(t.Context(), nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		t.Fatal(err)
	}
	b := a.client.NewBlockBlobClient(a.prefix + name)
	if _, err := b.Upload(t.Context(), streaming.NopCloser(bytes.NewReader(content)), nil); err != nil {
		t.Fatal(err)
	}
}

func TestAzure(t *testing.T) {
	if os.Getenv(azuriteEnv) == "" {
		t.Skipf("%s is not set: it takes the connection string of an Azurite", azuriteEnv)
	}
	storetest.Run(t, newAzurite)
}

// What is wrong with an account is said in one line, with what to do.
func TestAzureMessages(t *testing.T) {
	if os.Getenv(azuriteEnv) == "" {
		t.Skipf("%s is not set", azuriteEnv)
	}
	a := newAzurite(t).(*azurite)
	file := t.TempDir() + "/key"
	if err := os.WriteFile(file, []byte("d3Jvbmc="), 0o600); err != nil {
		t.Fatal(err)
	}
	wrongKey := blobstore.Config{URL: a.cfg.URL, AccountKeyFile: file}
	for _, c := range []struct {
		what string
		cfg  blobstore.Config
		is   error
		says []string
	}{
		{"no container", a.cfg, blobstore.ErrNotFound, []string{"no container", "blobstore.url"}},
		{"wrong key", wrongKey, blobstore.ErrAuth, []string{"denies access (403", "account_key_file"}},
		{"nobody there", blobstore.Config{URL: "http://127.0.0.1:1/devstoreaccount1/images", AccountKeyFile: file, Timeout: time.Second}, blobstore.ErrUnavailable, []string{"http://127.0.0.1:1/devstoreaccount1", "connection refused", "blobstore.url"}},
	} {
		s, err := blobstore.Open(t.Context(), c.cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Stat(t.Context(), "a")
		if !errors.Is(err, c.is) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v", c.what, err, c.is)
		}
		for _, says := range c.says {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want it to say %q", c.what, err, says)
			}
		}
		t.Logf("%s: %v", c.what, err)
		s.Close()
	}
}
