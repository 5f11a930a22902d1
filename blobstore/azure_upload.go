package blobstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/pageblob"

	"skylun/block"
)

// An upload is a page blob under the image's own name, with metadata that says
// that it is one (uploadState). Who sees that metadata sees no image. Commit
// replaces it, in one request: that is the moment the image appears.
//
// All writes demand the lease that Create takes and a goroutine renews. So
// there is one writer: one that was believed dead and comes back has lost the
// lease, and its writes are refused by the store, not by anybody's clock here.
// A killed upload leaves its lease to run out, which the next Create waits for.
//
// The order of a checkpoint is: pages, then metadata. The store makes each
// durable before it answers.
type azureUpload struct {
	s     *azureStore
	name  string
	what  string
	size  int64
	start int64 // Stored
	pages *pageblob.Client
	lease *lease // nil after the end

	puts, putBytes *atomic.Int64 // where writes are counted

	mu sync.Mutex
	uploadState
}

var _ object = (*azureUpload)(nil)

const (
	maxPages    = 4 << 20 // of one Put Page
	maxPageBlob = 8 << 40
	maxRuns     = 16 // requests for one WriteAt, so that scattered data does not become thousands
)

// uploadState is the metadata of an upload.
type uploadState struct {
	source string // hash; empty: nothing to go on with
	stored int64
}

// The names of metadata; comparing them ignores case.
const (
	metaUpload  = "skylun_upload" // the version of the rest; it marks an upload
	metaSource  = "skylun_source"
	metaStored  = "skylun_stored"
	metaVersion = "1"
)

func (u uploadState) metadata() map[string]*string {
	version, source, stored := metaVersion, u.source, strconv.FormatInt(u.stored, 10)
	if source == "" {
		source = "-" // a header has to have a value
	}
	return map[string]*string{metaUpload: &version, metaSource: &source, metaStored: &stored}
}

// parseUploadState returns the state that metadata holds, nil when it marks no
// upload. A state of another version is one that cannot be gone on with.
func parseUploadState(metadata map[string]*string) *uploadState {
	get := func(name string) (string, bool) {
		for k, v := range metadata {
			if strings.EqualFold(k, name) && v != nil {
				return *v, true
			}
		}
		return "", false
	}
	version, ok := get(metaUpload)
	if !ok {
		return nil
	}
	var u uploadState
	if version == metaVersion {
		u.source, _ = get(metaSource)
		v, _ := get(metaStored)
		u.stored, _ = strconv.ParseInt(v, 10, 64)
		u.stored = max(0, u.stored)
	}
	return &u
}

// hashSource makes any text fit for metadata.
func hashSource(source string) string {
	if source == "" {
		return ""
	}
	h := sha256.Sum256([]byte(source))
	return hex.EncodeToString(h[:16])
}

// Create implements Store.
func (s *azureStore) Create(ctx context.Context, name string, size int64, source string) (Upload, error) {
	return create(ctx, s, name, size, source)
}

// CreateStriped implements Store.
func (s *azureStore) CreateStriped(ctx context.Context, name string, size int64, source string, st Striping) (Upload, error) {
	return createStriped(ctx, s, name, size, source, st)
}

// createObject implements striper.
func (s *azureStore) createObject(ctx context.Context, name string, size int64, source string) (object, error) {
	if size > maxPageBlob {
		return nil, &fault{ErrFormat, fmt.Sprintf("image %s: %d bytes are more than the %d a page blob holds: import it with %d stripes or more", name, size, int64(maxPageBlob), (size-1)/maxPageBlob+1)}
	}
	u := &azureUpload{s: s, name: name, what: "image " + name, size: size, puts: &s.n.puts, putBytes: &s.n.putBytes,
		pages: s.client.NewPageBlobClient(s.loc.prefix + name), uploadState: uploadState{source: hashSource(source)}}
	if isPart(name) {
		u.what = "part " + name
	}
	for round := 1; ; round++ {
		err := u.open(ctx)
		switch {
		case err == nil:
			return u, nil
		case round == maxRounds:
			return nil, err
		case errors.Is(err, errNoContainer):
			if err := s.createContainer(ctx); err != nil {
				return nil, err
			}
		case errors.Is(err, errVanished):
		default:
			return nil, err
		}
	}
}

// maxRounds bounds how often others may remove what Create has just made.
const maxRounds = 5

var errVanished = errors.New("removed by somebody else meanwhile")

// open makes the blob, or finds it, takes the lease, and prepares for writing.
func (u *azureUpload) open(ctx context.Context) error {
	none := azcore.ETagAny
	err := u.create(ctx, &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &none}})
	// Leased or not, what is there decides.
	if err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, ErrBusy) {
		return err
	}
	if _, err := u.found(ctx); err != nil {
		return err
	}
	if u.lease, err = u.s.takeLease(ctx, u.name, u.what); err != nil {
		return vanished(err)
	}
	if err := u.prepare(ctx); err != nil {
		u.Close()
		return err
	}
	return nil
}

// prepare, which holds the lease, goes on with what is there or starts over.
func (u *azureUpload) prepare(ctx context.Context) error {
	p, err := u.found(ctx) // again: the lease may have had another holder meanwhile
	if err != nil {
		return err
	}
	if u.source != "" && p.upload.source == u.source && p.info.BlobSize == u.size && p.upload.stored <= u.size {
		u.stored, u.start = p.upload.stored, p.upload.stored
		return nil
	}
	return u.create(ctx, u.lease.conditions()) // replaces the blob by an empty one
}

// found returns the properties of the upload that is there; an image is
// ErrExists.
func (u *azureUpload) found(ctx context.Context) (properties, error) {
	p, err := u.s.properties(ctx, u.name, u.what)
	switch {
	case err != nil:
		return p, vanished(err)
	case p.upload == nil:
		return p, &fault{ErrExists, fmt.Sprintf("%s: exists already in %s: choose another name, or remove it first", u.what, u.s.URL())}
	}
	return p, nil
}

func vanished(err error) error {
	if errors.Is(err, ErrNotFound) && !errors.Is(err, errNoContainer) {
		return fmt.Errorf("%w: %w", err, errVanished)
	}
	return err
}

// create makes an empty page blob marked as an upload.
func (u *azureUpload) create(ctx context.Context, cond *blob.AccessConditions) error {
	return u.s.other(ctx, u.what, func(ctx context.Context) error {
		_, err := u.pages.Create(ctx, u.size, &pageblob.CreateOptions{Metadata: u.metadata(), AccessConditions: cond})
		return err
	})
}

func (s *azureStore) createContainer(ctx context.Context) error {
	err := s.other(ctx, "container "+s.loc.container, func(ctx context.Context) error {
		_, err := s.client.Create(ctx, nil)
		return err
	})
	if err == nil {
		s.log.Info("container created", "url", s.URL())
	}
	if errors.Is(err, ErrExists) { // somebody else did
		return nil
	}
	return err
}

// Stored implements Upload.
func (u *azureUpload) Stored() int64 { return u.start }

// WriteAt implements Upload.
func (u *azureUpload) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := checkWrite(u.name, p, off, u.size); err != nil {
		return err
	}
	for _, r := range dataRuns(p, maxRuns) {
		for r.Off < r.End {
			part := block.Range{Off: r.Off, End: min(r.End, r.Off+maxPages)}
			if err := u.put(ctx, p[part.Off:part.End], off+part.Off); err != nil {
				return err
			}
			r.Off = part.End
		}
	}
	return nil
}

// put is one Put Page.
func (u *azureUpload) put(ctx context.Context, p []byte, off int64) error {
	err := u.leased(ctx, u.puts, func(ctx context.Context, cond *blob.AccessConditions) error {
		_, err := u.pages.UploadPages(ctx, streaming.NopCloser(bytes.NewReader(p)),
			blob.HTTPRange{Offset: off, Count: int64(len(p))}, &pageblob.UploadPagesOptions{AccessConditions: cond})
		return err
	})
	if err == nil {
		u.putBytes.Add(int64(len(p)))
	}
	return err
}

// Checkpoint implements Upload.
func (u *azureUpload) Checkpoint(ctx context.Context, off int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if off <= u.stored {
		return nil
	}
	next := uploadState{source: u.source, stored: off}
	if _, err := u.setMetadata(ctx, next.metadata()); err != nil {
		return err
	}
	u.stored = off
	return nil
}

// setMetadata replaces the metadata and returns the ETag that the blob then
// has.
func (u *azureUpload) setMetadata(ctx context.Context, metadata map[string]*string) (etag azcore.ETag, err error) {
	err = u.leased(ctx, &u.s.n.others, func(ctx context.Context, cond *blob.AccessConditions) error {
		r, err := u.pages.SetMetadata(ctx, metadata, &blob.SetMetadataOptions{AccessConditions: cond})
		if err == nil && r.ETag == nil {
			err = errAnswer("no ETag")
		}
		if err == nil {
			etag = *r.ETag
		}
		return err
	})
	return etag, err
}

// seal implements object. That the metadata could be set says that nobody else
// has had the lease.
func (u *azureUpload) seal(ctx context.Context) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	etag, err := u.setMetadata(ctx, uploadState{source: u.source, stored: u.size}.metadata())
	return identityFromETag(etag), err
}

// held implements object: a lease that another one has had since cannot be
// renewed.
func (u *azureUpload) held(ctx context.Context) error { return u.lease.renew(ctx) }

// uncounted implements object.
func (u *azureUpload) uncounted() { u.puts, u.putBytes = &u.s.n.others, new(atomic.Int64) }

// Commit implements Upload.
func (u *azureUpload) Commit(ctx context.Context) (Info, error) {
	if _, err := u.setMetadata(ctx, nil); err != nil {
		return Info{}, err
	}
	u.Close() // a lease that cannot be given back runs out
	return u.s.Stat(ctx, u.name)
}

// Abort implements Upload.
func (u *azureUpload) Abort(ctx context.Context) error {
	err := u.s.remove(ctx, u.name, u.what, u.lease.conditions())
	u.Close()
	return err
}

// Close implements Upload.
func (u *azureUpload) Close() error {
	if u.lease == nil {
		return nil
	}
	err := u.lease.release()
	u.lease = nil
	return err
}
