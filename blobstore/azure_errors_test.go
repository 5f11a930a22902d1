package blobstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

func TestClassify(t *testing.T) {
	s := &azureStore{log: slog.New(slog.DiscardHandler), loc: location{endpoint: "https://acc.blob.core.windows.net", account: "acc", container: "images"}}
	answered := func(status int, code string) error {
		return &azcore.ResponseError{StatusCode: status, ErrorCode: code, RawResponse: &http.Response{StatusCode: status, Header: http.Header{}}}
	}
	inURL := func(err error) error {
		return fmt.Errorf("sdk: %w", &url.Error{Op: "Get", URL: "https://acc.blob.core.windows.net/images/a?sig=SECRET", Err: err})
	}
	for _, c := range []struct {
		err   error
		kind  error
		again bool
		says  string
	}{
		{answered(404, "BlobNotFound"), ErrNotFound, false, "not found in https://acc"},
		{answered(404, ""), ErrNotFound, false, "not found"},
		{answered(404, "ContainerNotFound"), ErrNotFound, false, `no container "images"`},
		{answered(409, "ContainerBeingDeleted"), ErrUnavailable, false, "being deleted"},
		{answered(409, "BlobAlreadyExists"), ErrExists, false, "choose another name"},
		{answered(409, "ContainerAlreadyExists"), ErrExists, false, ""},
		{answered(412, "ConditionNotMet"), ErrChanged, false, "changed"},
		{answered(412, ""), ErrChanged, false, "changed"},
		{answered(416, "InvalidRange"), ErrChanged, false, "changed"},
		{answered(412, "LeaseIdMissing"), ErrBusy, false, "lease"},
		{answered(409, "LeaseAlreadyPresent"), ErrBusy, false, "lease"},
		{answered(412, "LeaseLost"), ErrBusy, false, "lost"},
		{answered(412, "LeaseNotPresentWithBlobOperation"), ErrBusy, false, "lost"},
		{answered(409, "SnapshotsPresent"), ErrBusy, false, "snapshots"},
		{answered(401, "NoAuthenticationInformation"), ErrAuth, false, "role"},
		{answered(403, "AuthenticationFailed"), ErrAuth, false, "403 AuthenticationFailed"},
		{answered(403, "AuthorizationPermissionMismatch"), ErrAuth, false, "role Storage Blob Data"},
		{answered(403, ""), ErrAuth, false, "denies access (403)"},
		{answered(400, "InvalidAuthenticationInfo"), ErrAuth, false, "denies"},
		{answered(403, "AccountIsDisabled"), ErrUnavailable, false, "disabled"},
		{answered(503, "ServerBusy"), ErrThrottled, true, "slow down"},
		{answered(429, ""), ErrThrottled, true, "slow down"},
		{answered(500, "InternalError"), ErrUnavailable, true, "500 InternalError"},
		{answered(500, "OperationTimedOut"), ErrUnavailable, true, ""},
		{answered(502, ""), ErrUnavailable, true, "502"},
		{answered(504, ""), ErrUnavailable, true, ""},
		{answered(408, ""), ErrUnavailable, true, ""},
		{answered(501, ""), ErrUnavailable, false, "refuses"},
		{answered(400, "InvalidHeaderValue"), ErrUnavailable, false, "400 InvalidHeaderValue"},
		{answered(409, "BlobArchived"), ErrUnavailable, false, "archive"},
		{inURL(&net.DNSError{Name: "acc.blob.core.windows.net", IsNotFound: true, Err: "no such host"}), ErrUnavailable, false, "no host acc.blob.core.windows.net"},
		{inURL(&net.DNSError{Name: "acc", IsTemporary: true, Err: "server misbehaving"}), ErrUnavailable, true, "misbehaving"},
		{inURL(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}), ErrUnavailable, true, "connection refused: check"},
		{inURL(syscall.ECONNRESET), ErrUnavailable, true, "reset"},
		{inURL(io.ErrUnexpectedEOF), ErrUnavailable, true, "EOF"},
		{inURL(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), ErrUnavailable, false, "no secure connection"},
		{inURL(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), ErrUnavailable, false, "no secure connection"},
		{inURL(errStalled), ErrUnavailable, true, "does not answer"},
		{context.DeadlineExceeded, ErrUnavailable, true, "does not answer"},
		{tokenError{errors.New("DefaultAzureCredential: failed\nsecond line\nthird")}, ErrAuth, false, "az login"},
		{errAnswer("nonsense"), ErrUnavailable, true, "nonsense"},
		{errChanged("image a"), ErrChanged, false, "changed"},
		{errors.New("anything\nelse"), ErrUnavailable, true, "anything"},
	} {
		f := s.classify(c.err, "image a")
		text := f.err.Error()
		if !errors.Is(f.err, c.kind) || f.again != c.again || !strings.Contains(text, c.says) ||
			!strings.Contains(text, "image a") || strings.Contains(text, "SECRET") || strings.Contains(text, "\n") {
			t.Errorf("%v: %q, again %v; want %v with %q, again %v", c.err, text, f.again, c.kind, c.says, c.again)
		}
		if is := errors.Is(f.err, ErrUnavailable); is != (errors.Is(c.kind, ErrUnavailable)) {
			t.Errorf("%v: is ErrUnavailable: %v", c.err, is)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		name, value string
		min, max    time.Duration
	}{
		{"Retry-After", "3", 3 * time.Second, 3 * time.Second},
		{"Retry-After", "-3", 0, 0},
		{"Retry-After", "soon", 0, 0},
		{"Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 55 * time.Second, time.Minute},
		{"Retry-After", time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat), 0, 0},
		{"X-Ms-Retry-After-Ms", "250", 250 * time.Millisecond, 250 * time.Millisecond},
		{"Other", "3", 0, 0},
	} {
		got := retryAfter(&http.Response{Header: http.Header{c.name: {c.value}}})
		if got < c.min || got > c.max {
			t.Errorf("%s: %s is %v", c.name, c.value, got)
		}
	}
}
