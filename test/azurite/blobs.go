package azurite

import (
	"context"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
)

// Client returns a client of the SDK, for tests that look at the store, or
// change it, behind the server's back.
func (s *Server) Client() (*azblob.Client, error) {
	return azblob.NewClientFromConnectionString(s.ConnectionString(), nil)
}

// CreateContainer makes an empty container.
func (s *Server) CreateContainer(ctx context.Context, name string) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	_, err = c.CreateContainer(ctx, name, nil)
	return err
}

// Put stores what r holds as a block blob, in place of what was there, a blob
// of whatever type.
func (s *Server) Put(ctx context.Context, container, blob string, r io.Reader) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	if _, err := c.DeleteBlob(ctx, container, blob, nil); err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
		return err
	}
	_, err = c.UploadStream(ctx, container, blob, r, nil)
	return err
}

// Get writes the bytes of a blob to w.
func (s *Server) Get(ctx context.Context, container, blob string, w io.Writer) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	r, err := c.DownloadStream(ctx, container, blob, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(w, r.Body)
	return err
}
