package blobstore

import (
	"context"
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

var _ striper = (*azureStore)(nil)

// statObject implements striper.
func (s *azureStore) statObject(ctx context.Context, name string) (string, int64, error) {
	p, err := s.properties(ctx, name, "part "+name)
	return p.info.Identity, p.info.BlobSize, err
}

// dropParts implements striper. A part is removed as it was when it was
// listed: one that an upload has taken since is leased, or another.
func (s *azureStore) dropParts(ctx context.Context, image string, from int, sure func(context.Context) error) (bool, error) {
	parts, err := s.listParts(ctx, image, from)
	if err != nil || len(parts) == 0 {
		return false, err
	}
	if err := sure(ctx); err != nil {
		return false, err
	}
	found := false
	for _, p := range parts {
		cond := &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &p.etag}}
		err := s.remove(ctx, p.name, "part "+p.name, cond)
		switch {
		case err == nil:
			found = true
		case errors.Is(err, ErrBusy), errors.Is(err, ErrChanged), errors.Is(err, ErrNotFound): // somebody else's
		default:
			return found, err
		}
	}
	return found, nil
}

// listedPart is a part as a list tells of it.
type listedPart struct {
	name string
	etag azcore.ETag
}

func (s *azureStore) listParts(ctx context.Context, image string, from int) (parts []listedPart, err error) {
	prefix := s.loc.prefix + partsFolder(image)
	opts := &container.ListBlobsFlatOptions{Prefix: &prefix}
	for {
		var page container.ListBlobsFlatResponse
		err := s.other(ctx, "image "+image, func(ctx context.Context) (err error) {
			page, err = s.client.NewListBlobsFlatPager(opts).NextPage(ctx)
			return err
		})
		if errors.Is(err, errNoContainer) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if page.Segment != nil {
			for _, item := range page.Segment.BlobItems {
				if item == nil || item.Name == nil || item.Properties == nil || item.Properties.ETag == nil {
					continue
				}
				// What is no part has the number -1.
				if name := strings.TrimPrefix(*item.Name, s.loc.prefix); partIndex(name) >= from {
					parts = append(parts, listedPart{name, etagFromIdentity(identityFromETag(*item.Properties.ETag))})
				}
			}
		}
		if page.NextMarker == nil || *page.NextMarker == "" {
			return parts, nil
		}
		opts.Marker = page.NextMarker
	}
}
