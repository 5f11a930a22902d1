package blobstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
)

// errAnswer is an answer that cannot be one of the store's: wrong length,
// wrong range. It says why.
type errAnswer string

func (e errAnswer) Error() string { return string(e) }

// Kinds that only this backend tells apart.
var (
	errLeaseLost   = fmt.Errorf("lease lost: %w", ErrBusy)
	errNoContainer = fmt.Errorf("no container: %w", ErrNotFound)
	errBlobType    = errors.New("other type of blob")
)

// classify tells what an error of the SDK means for what, which is an image or
// the store. It is the only place that knows the SDK's errors; nothing of them
// goes further, as their texts span lines and may hold the query of a URL,
// which is a secret.
func (s *azureStore) classify(err error, what string) *failure {
	var (
		own    *fault
		answer *azcore.ResponseError
		token  tokenError
		wrong  errAnswer
		dns    *net.DNSError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
	)
	host := s.loc.endpoint
	switch {
	case errors.As(err, &own):
		return &failure{err: own}
	case errors.As(err, &answer):
		return s.classifyAnswer(answer, what)
	case errors.As(err, &token):
		s.log.Debug("no token", "error", token)
		return final(ErrAuth, what, "%v", errNoIdentity)
	case errors.As(err, &wrong):
		return passing(ErrUnavailable, what, "%s answered with %v", host, wrong)
	case errors.Is(err, errStalled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return passing(ErrUnavailable, what, "%s does not answer: check the network", host)
	case errors.As(err, &dns) && dns.IsNotFound:
		return absent(what, "there is no host %s: check blobstore.url and the name service", dns.Name)
	case errors.As(err, &cert), errors.As(err, &record):
		return absent(what, "no secure connection to %s: %s", host, oneLine(peel(err)))
	}
	return passing(ErrUnavailable, what, "%s cannot be reached: %s: check blobstore.url and the network", host, oneLine(peel(err)))
}

// final is a failure that will not pass.
func final(kind error, what, format string, args ...any) *failure {
	return &failure{err: &fault{kind, what + ": " + fmt.Sprintf(format, args...)}}
}

// passing is a failure that may pass.
func passing(kind error, what, format string, args ...any) *failure {
	f := final(kind, what, format, args...)
	f.again = true
	return f
}

// absent is a failure of the whole store that will not pass.
func absent(what, format string, args ...any) *failure {
	f := final(ErrUnavailable, what, format, args...)
	f.down = true
	return f
}

// peel takes err out of the url.Error around it, which would show the URL.
func peel(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// classifyAnswer tells what an answer means that is not success. Azure, "Blob
// Storage error codes" and "Common REST API error codes".
func (s *azureStore) classifyAnswer(e *azcore.ResponseError, what string) *failure {
	host := s.loc.endpoint
	answered := strconv.Itoa(e.StatusCode)
	if e.ErrorCode != "" {
		answered += " " + e.ErrorCode
	}
	switch bloberror.Code(e.ErrorCode) {
	case bloberror.ContainerNotFound:
		return final(errNoContainer, what, "there is no container %q in %s: check blobstore.url; the first import creates it", s.loc.container, host)
	case bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return final(ErrUnavailable, what, "the container %q is being deleted: try again in a minute", s.loc.container)
	case bloberror.BlobAlreadyExists, bloberror.ContainerAlreadyExists, bloberror.ResourceAlreadyExists, bloberror.UnauthorizedBlobOverwrite:
		return final(ErrExists, what, "exists already in %s: choose another name, or remove it first", s.URL())
	case bloberror.LeaseIDMissing, bloberror.LeaseIDMismatchWithBlobOperation, bloberror.LeaseIDMismatchWithLeaseOperation,
		bloberror.LeaseAlreadyPresent, bloberror.LeaseIsBreakingAndCannotBeAcquired, bloberror.LeaseIsBreakingAndCannotBeChanged,
		bloberror.LeaseIsBrokenAndCannotBeRenewed:
		return final(ErrBusy, what, "somebody else holds the lease of the blob: it is being imported, or it is a disk of an Azure machine")
	case bloberror.LeaseLost, bloberror.LeaseNotPresentWithBlobOperation, bloberror.LeaseNotPresentWithLeaseOperation:
		return final(errLeaseLost, what, "the lease of the blob was lost, somebody else may be importing it")
	case bloberror.SnapshotsPresent:
		return final(ErrBusy, what, "the blob has snapshots: remove them first")
	case bloberror.BlobArchived, bloberror.BlobBeingRehydrated:
		return final(ErrUnavailable, what, "the blob is in the archive tier (%s): move it to the hot tier first", answered)
	case bloberror.AccountIsDisabled:
		return final(ErrUnavailable, what, "the account %s is disabled", s.loc.account)
	case bloberror.InvalidBlobType:
		return final(errBlobType, what, "the blob is not of the expected type (%s)", answered)
	case bloberror.InvalidAuthenticationInfo, bloberror.NoAuthenticationInformation:
		return final(ErrAuth, what, "%s denies access (%s): %s", host, answered, s.cred.hint())
	}
	switch code := e.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return final(ErrAuth, what, "%s denies access (%s): %s", host, answered, s.cred.hint())
	case code == http.StatusNotFound:
		return final(ErrNotFound, what, "not found in %s", s.URL())
	case code == http.StatusPreconditionFailed, code == http.StatusRequestedRangeNotSatisfiable, code == http.StatusNotModified:
		return &failure{err: errChanged(what)}
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		f := passing(ErrThrottled, what, "%s asks to slow down (%s)", host, answered)
		f.after = retryAfter(e.RawResponse)
		return f
	case code == http.StatusRequestTimeout, code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported:
		f := passing(ErrUnavailable, what, "%s has a problem (%s)", host, answered)
		f.after = retryAfter(e.RawResponse)
		return f
	}
	return final(ErrUnavailable, what, "%s refuses the request (%s)", host, answered)
}

// retryAfter returns how long the answer asks to wait. RFC 9110 10.2.3, and in
// milliseconds.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	for _, h := range []string{"x-ms-retry-after-ms", "retry-after-ms"} {
		if ms, err := strconv.Atoi(resp.Header.Get(h)); err == nil && ms > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	v := resp.Header.Get("Retry-After")
	if sec, err := strconv.Atoi(v); err == nil && sec > 0 {
		return time.Duration(sec) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
