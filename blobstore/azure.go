package blobstore

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// azureStore keeps images as blobs of a container: those it makes are page
// blobs, those it finds may be of any type. What is not finished has metadata
// that says so; see azure_upload.go.
type azureStore struct {
	loc    location
	cred   credential
	client *container.Client
	tr     *transport
	log    *slog.Logger
	n      counters

	// How long an operation may take, all tries included.
	readTotal  time.Duration // of an image's content
	otherTotal time.Duration // of anything else somebody waits for
	writeTotal time.Duration // of a part of an upload, which may run for hours

	down  atomic.Bool // the last operation found the store unavailable
	known probed
}

var _ Store = (*azureStore)(nil)

// dialer makes connections; the default one is net.Dialer's.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func openAzure(cfg Config, dial dialer, log *slog.Logger) (*azureStore, error) {
	loc, err := parseAzureURL(cfg.URL)
	if err != nil {
		return nil, &fault{ErrConfig, "blobstore.url: " + err.Error()}
	}
	s := &azureStore{
		loc:        loc,
		log:        log,
		readTotal:  cfg.Timeout,
		otherTotal: cfg.Timeout,
		writeTotal: 9 * cfg.Timeout,
	}
	if s.cred, err = findCredential(cfg, loc, log); err != nil {
		return nil, err
	}
	s.tr = newTransport(cfg.TryTimeout, dial, &s.n.inFlight)
	s.client, err = newClient(loc, s.cred, &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: s.tr,
		Retry:     policy.RetryOptions{MaxRetries: -1}, // ours alone: retry.go
		Telemetry: policy.TelemetryOptions{ApplicationID: "skylun"},
	}})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *azureStore) URL() string  { return s.loc.url() }
func (s *azureStore) Stats() Stats { return s.n.stats() }

func (s *azureStore) Close() error {
	s.tr.client.CloseIdleConnections()
	return nil
}

// do calls op until it succeeds, fails for good, or total is over. Every call
// counts as one request in n. What is what the errors are about.
func (s *azureStore) do(ctx context.Context, total time.Duration, n *atomic.Int64, what string, op func(context.Context) error) error {
	var last *failure
	err := retry(ctx, total, &s.n, s.log, func(ctx context.Context) *failure {
		n.Add(1)
		last = nil
		if err := op(ctx); err != nil {
			last = s.classify(err, what)
		}
		return last
	})
	switch {
	case err == nil:
		if s.down.Load() && s.down.CompareAndSwap(true, false) {
			s.log.Info("blob store answers again", "url", s.URL())
		}
	case ctx.Err() == nil && (last.again || last.down):
		if s.down.CompareAndSwap(false, true) {
			s.log.Warn("blob store is unavailable", "url", s.URL(), "error", err)
		}
	}
	return err
}

// other is do for a request that carries no content of an image.
func (s *azureStore) other(ctx context.Context, what string, op func(context.Context) error) error {
	return s.do(ctx, s.otherTotal, &s.n.others, what, op)
}

// Stat implements Store.
func (s *azureStore) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	p, err := s.properties(ctx, name, "image "+name)
	if err != nil {
		return Info{}, err
	}
	if p.upload != nil {
		return Info{}, errUnfinished(name)
	}
	return s.probe(ctx, p.info)
}

func errUnfinished(name string) error {
	return &fault{ErrNotFound, "image " + name + ": its import is not finished: import it again to go on, or remove it"}
}

// probe completes info, of which the properties are known, from the content.
func (s *azureStore) probe(ctx context.Context, info Info) (Info, error) {
	c := s.content(info)
	c.count = &s.n.others
	err := probe(ctx, &info, c.readAt)
	if err == errManifest {
		err = completeStriped(ctx, s, &info, c.readAt)
	}
	return info, err
}

// properties are what the store tells of a blob without its content.
type properties struct {
	info   Info
	upload *uploadState // nil: it is complete
}

func (s *azureStore) properties(ctx context.Context, name, what string) (p properties, err error) {
	b := s.blob(name)
	err = s.other(ctx, what, func(ctx context.Context) error {
		r, err := b.GetProperties(ctx, nil)
		if err != nil {
			return err
		}
		if r.ETag == nil || r.ContentLength == nil {
			return errAnswer("properties that lack ETag or length")
		}
		p = properties{
			info:   blobInfo(name, *r.ETag, *r.ContentLength, r.LastModified),
			upload: parseUploadState(r.Metadata),
		}
		return nil
	})
	return p, err
}

func blobInfo(name string, etag azcore.ETag, size int64, modified *time.Time) Info {
	info := Info{Name: name, BlobSize: size, Identity: identityFromETag(etag)}
	if modified != nil {
		info.Modified = modified.UTC()
	}
	return info
}

// An ETag comes with quotes in a header and without in a list; an identity is
// without.
func identityFromETag(etag azcore.ETag) string { return strings.Trim(string(etag), `"`) }
func etagFromIdentity(id string) azcore.ETag   { return azcore.ETag(`"` + id + `"`) }

// blob returns a client of the image's blob.
func (s *azureStore) blob(name string) *blob.Client {
	return s.client.NewBlobClient(s.loc.prefix + name)
}

// Delete implements Store.
func (s *azureStore) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return dropDocuments(s.deleteImage(ctx, name), func(k Kind) error { return s.dropDocument(ctx, name, k) })
}

// deleteImage removes an image, or what an unfinished upload left. Parts come
// last: without them the image would be one that cannot be read.
func (s *azureStore) deleteImage(ctx context.Context, name string) error {
	err := s.remove(ctx, name, "image "+name, nil)
	if err != nil && (!errors.Is(err, ErrNotFound) || errors.Is(err, errNoContainer)) {
		return err
	}
	parts, e := s.dropParts(ctx, name, 0, func(ctx context.Context) error {
		if _, err := s.properties(ctx, name, "image "+name); errors.Is(err, ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		return errTaken
	})
	switch {
	case errors.Is(e, errTaken): // there is another image already, or its import
	case e != nil:
		return e
	case parts:
		return nil
	}
	return err
}

// remove deletes a blob, on conditions.
func (s *azureStore) remove(ctx context.Context, name, what string, cond *blob.AccessConditions) error {
	b := s.blob(name)
	tried := false
	return s.other(ctx, what, func(ctx context.Context) error {
		_, err := b.Delete(ctx, &blob.DeleteOptions{AccessConditions: cond})
		if tried && bloberror.HasCode(err, bloberror.BlobNotFound) {
			return nil // by the try before, whose answer was lost
		}
		tried = true
		return err
	})
}
