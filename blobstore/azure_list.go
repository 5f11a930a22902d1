package blobstore

import (
	"context"
	"errors"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// probed remembers what List found in the content of blobs, so that listing
// again reads only what is new.
type probed struct {
	mu    sync.Mutex
	infos map[string]Info // by name, replaced by every List
}

func (p *probed) get(name, identity string) (Info, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, ok := p.infos[name]
	return info, ok && info.Identity == identity
}

func (p *probed) set(infos []Info) {
	m := make(map[string]Info, len(infos))
	for _, info := range infos {
		m[info.Name] = info
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.infos = m
}

// List implements Store.
func (s *azureStore) List(ctx context.Context) ([]Info, error) {
	found, err := s.blobs(ctx)
	if errors.Is(err, errNoContainer) {
		s.log.Warn("container of images does not exist, the first import creates it", "url", s.URL())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	byName := make(map[string]Info, len(found))
	for i, info := range found {
		names[i] = info.Name
		byName[info.Name] = info
	}
	infos, err := collect(ctx, s.log, names, func(ctx context.Context, name string) (Info, error) {
		info := byName[name]
		if known, ok := s.known.get(name, info.Identity); ok {
			return known, nil
		}
		return s.probe(ctx, info)
	})
	if err == nil {
		s.known.set(infos)
	}
	return infos, err
}

// blobs returns the properties of all blobs that can be images.
func (s *azureStore) blobs(ctx context.Context) ([]Info, error) {
	opts := &container.ListBlobsFlatOptions{Prefix: &s.loc.prefix, Include: container.ListBlobsInclude{Metadata: true}}
	var infos []Info
	for {
		var page container.ListBlobsFlatResponse
		err := s.other(ctx, s.URL(), func(ctx context.Context) (err error) {
			page, err = s.client.NewListBlobsFlatPager(opts).NextPage(ctx)
			return err
		})
		if err != nil {
			return nil, err
		}
		if page.Segment != nil {
			for _, item := range page.Segment.BlobItems {
				if info, ok := s.listed(item); ok {
					infos = append(infos, info)
				}
			}
		}
		if page.NextMarker == nil || *page.NextMarker == "" {
			return infos, nil
		}
		opts.Marker = page.NextMarker
	}
}

// listed returns what a list tells of a blob, unless it cannot be an image.
func (s *azureStore) listed(item *container.BlobItem) (Info, bool) {
	if item == nil || item.Name == nil || len(*item.Name) <= len(s.loc.prefix) ||
		item.Properties == nil || item.Properties.ETag == nil || item.Properties.ContentLength == nil {
		return Info{}, false
	}
	name := (*item.Name)[len(s.loc.prefix):]
	if CheckName(name) != nil || parseUploadState(item.Metadata) != nil {
		return Info{}, false
	}
	return blobInfo(name, *item.Properties.ETag, *item.Properties.ContentLength, item.Properties.LastModified), true
}
