package blobstore

import (
	"context"
	"errors"

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
// listed: one that an upload has taken since is another.
func (s *azureStore) dropParts(ctx context.Context, image string, from int) (bool, error) {
	prefix := s.loc.prefix + partsFolder(image)
	opts := &container.ListBlobsFlatOptions{Prefix: &prefix}
	found := false
	for {
		var page container.ListBlobsFlatResponse
		err := s.other(ctx, "image "+image, func(ctx context.Context) (err error) {
			page, err = s.client.NewListBlobsFlatPager(opts).NextPage(ctx)
			return err
		})
		if errors.Is(err, errNoContainer) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		if page.Segment != nil {
			for _, item := range page.Segment.BlobItems {
				if item == nil || item.Name == nil || item.Properties == nil || item.Properties.ETag == nil || len(*item.Name) < len(s.loc.prefix) {
					continue
				}
				name := (*item.Name)[len(s.loc.prefix):]
				if i := partIndex(name); i < from {
					continue // also what is no part
				}
				etag := etagFromIdentity(identityFromETag(*item.Properties.ETag))
				err := s.remove(ctx, name, "part "+name, &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &etag}})
				switch {
				case err == nil:
					found = true
				case errors.Is(err, ErrBusy), errors.Is(err, ErrChanged), errors.Is(err, ErrNotFound): // somebody else's
				default:
					return found, err
				}
			}
		}
		if page.NextMarker == nil || *page.NextMarker == "" {
			return found, nil
		}
		opts.Marker = page.NextMarker
	}
}
