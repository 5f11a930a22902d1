package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
)

// A document is the block blob .documents/KIND/NAME. Its tag is the ETag.

func (s *azureStore) documentBlob(name string, kind Kind) *blockblob.Client {
	return s.client.NewBlockBlobClient(s.loc.prefix + documentsDir + "/" + string(kind) + "/" + name)
}

// Document implements Store.
func (s *azureStore) Document(ctx context.Context, name string, kind Kind) (data []byte, tag string, err error) {
	if err := checkDocument(name, nil); err != nil {
		return nil, "", err
	}
	b, what := s.documentBlob(name, kind), document(name, kind)
	err = s.other(ctx, what, func(ctx context.Context) error {
		r, err := b.DownloadStream(ctx, nil)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.ETag == nil || r.ContentLength == nil {
			return errAnswer("content that lacks ETag or length")
		}
		if *r.ContentLength > MaxDocument {
			return errDocumentSize(what, *r.ContentLength)
		}
		data, err = io.ReadAll(io.LimitReader(r.Body, MaxDocument+1))
		if err != nil || int64(len(data)) != *r.ContentLength {
			return errAnswer(fmt.Sprintf("%d bytes instead of %d", len(data), *r.ContentLength))
		}
		tag = identityFromETag(*r.ETag)
		return nil
	})
	return data, tag, err
}

// PutDocument implements Store. When the answer to a write is lost, the next
// try finds the document changed, by the first one.
func (s *azureStore) PutDocument(ctx context.Context, name string, kind Kind, data []byte, tag string) error {
	if err := checkDocument(name, data); err != nil {
		return err
	}
	cond := &blob.ModifiedAccessConditions{}
	if etag, none := etagFromIdentity(tag), azcore.ETagAny; tag == "" {
		cond.IfNoneMatch = &none
	} else {
		cond.IfMatch = &etag
	}
	b, what := s.documentBlob(name, kind), document(name, kind)
	err := s.other(ctx, what, func(ctx context.Context) error {
		_, err := b.Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), &blockblob.UploadOptions{
			AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: cond},
		})
		return err
	})
	if errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) {
		return errOther(what)
	}
	return err
}

// dropDocument removes a document.
func (s *azureStore) dropDocument(ctx context.Context, name string, kind Kind) error {
	b := s.documentBlob(name, kind)
	return s.other(ctx, document(name, kind), func(ctx context.Context) error {
		_, err := b.Delete(ctx, nil)
		return err
	})
}
