package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"skylun/node"
)

// Client asks the node that listens on a socket.
type Client struct {
	path string
	http *http.Client
}

// Dial returns a client of the node that listens at path. It fails with
// node.ErrNotRunning when nobody does.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, node.Failure(node.ErrNotRunning, fmt.Sprintf("no node is running (nobody listens on %s); start it with: skylun serve", path))
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("socket %s: permission denied; run this as the user the node runs as", path)
	case err != nil:
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	conn.Close()
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
	}}}, nil
}

// Close releases the client's connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// do sends a request and returns the response of a success; the caller closes
// its body.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the node at %s ended before it answered; its log says why", c.path)
		}
		return nil, fmt.Errorf("node at %s: %w", c.path, err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return resp, nil
}

// get fills v with the answer to a GET.
func (c *Client) get(ctx context.Context, path string, v any) error {
	return c.call(ctx, http.MethodGet, path, nil, v)
}

func (c *Client) call(ctx context.Context, method, path string, body, v any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if v == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(v)
	}
	if err != nil {
		return fmt.Errorf("node at %s: answer to %s %s: %w", c.path, method, path, err)
	}
	return nil
}

// Status implements API.
func (c *Client) Status(ctx context.Context) (s node.Status, err error) {
	return s, c.get(ctx, "/v1/status", &s)
}

// LUNs implements API.
func (c *Client) LUNs(ctx context.Context) (l []node.LUNStatus, err error) {
	return l, c.get(ctx, "/v1/luns", &l)
}

// Volumes implements API.
func (c *Client) Volumes(ctx context.Context) (v []node.VolumeStatus, err error) {
	return v, c.get(ctx, "/v1/volumes", &v)
}

// Volume implements API.
func (c *Client) Volume(ctx context.Context, name string) (v node.VolumeStatus, err error) {
	return v, c.get(ctx, volumePath(name), &v)
}

// CreateVolume implements API.
func (c *Client) CreateVolume(ctx context.Context, spec node.VolumeSpec) (v node.VolumeStatus, err error) {
	return v, c.call(ctx, http.MethodPost, "/v1/volumes", spec, &v)
}

// DeleteVolume implements API.
func (c *Client) DeleteVolume(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, volumePath(name), nil, nil)
}

// ResizeVolume implements API.
func (c *Client) ResizeVolume(ctx context.Context, name string, spec node.ResizeSpec) (v node.VolumeStatus, err error) {
	return v, c.call(ctx, http.MethodPut, volumePath(name)+"/size", spec, &v)
}

// Prefetch implements API.
func (c *Client) Prefetch(ctx context.Context, volume string) (s node.VolumePrefetch, err error) {
	return s, c.get(ctx, volumePath(volume)+"/prefetch", &s)
}

// SetPrefetch implements API.
func (c *Client) SetPrefetch(ctx context.Context, volume string, spec node.PrefetchSpec) (s node.VolumePrefetch, err error) {
	return s, c.call(ctx, http.MethodPut, volumePath(volume)+"/prefetch", spec, &s)
}

// PinVolume implements API.
func (c *Client) PinVolume(ctx context.Context, name string, pin bool) (v node.VolumeStatus, err error) {
	return v, c.call(ctx, http.MethodPut, volumePath(name)+"/pinned", pinSpec{pin}, &v)
}

// Local implements API.
func (c *Client) Local(ctx context.Context) (s node.LocalStatus, err error) {
	return s, c.get(ctx, "/v1/local", &s)
}

// Rebalance implements API.
func (c *Client) Rebalance(ctx context.Context) (s node.LocalStatus, err error) {
	return s, c.call(ctx, http.MethodPut, "/v1/local/rebalance", nil, &s)
}

// StopRebalance implements API.
func (c *Client) StopRebalance(ctx context.Context) (s node.LocalStatus, err error) {
	return s, c.call(ctx, http.MethodDelete, "/v1/local/rebalance", nil, &s)
}

// LeaveMember implements API.
func (c *Client) LeaveMember(ctx context.Context, spec node.LeaveSpec) (s node.LocalStatus, err error) {
	return s, c.call(ctx, http.MethodPut, "/v1/local/leaving", spec, &s)
}

// ReadVolume implements API.
func (c *Client) ReadVolume(ctx context.Context, name string, f func(p []byte, off int64) error) error {
	return c.content(ctx, volumePath(name)+"/content", f)
}

func (c *Client) content(ctx context.Context, path string, f func(p []byte, off int64) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readContent(resp.Body, f)
}

// Images implements API.
func (c *Client) Images(ctx context.Context) (l []node.ImageStatus, err error) {
	return l, c.get(ctx, "/v1/images", &l)
}

// Image implements API.
func (c *Client) Image(ctx context.Context, name string) (s node.ImageStatus, err error) {
	return s, c.get(ctx, imagePath(name), &s)
}

// DeleteImage implements API.
func (c *Client) DeleteImage(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, imagePath(name), nil, nil)
}

// MapLUN implements API.
func (c *Client) MapLUN(ctx context.Context, iqn string, lun int, volume string) (s node.LUNStatus, err error) {
	return s, c.call(ctx, http.MethodPut, lunPath(iqn, lun), mapSpec{volume}, &s)
}

// UnmapLUN implements API.
func (c *Client) UnmapLUN(ctx context.Context, iqn string, lun int, force bool) error {
	return c.call(ctx, http.MethodDelete, fmt.Sprintf("%s?force=%v", lunPath(iqn, lun), force), nil, nil)
}

// InsertMedia implements API.
func (c *Client) InsertMedia(ctx context.Context, iqn string, lun int, spec node.MediaSpec) (s node.LUNStatus, err error) {
	return s, c.call(ctx, http.MethodPut, mediumPath(iqn, lun), spec, &s)
}

// EjectMedia implements API.
func (c *Client) EjectMedia(ctx context.Context, iqn string, lun int, force bool) (s node.LUNStatus, err error) {
	return s, c.call(ctx, http.MethodDelete, fmt.Sprintf("%s?force=%v", mediumPath(iqn, lun), force), nil, &s)
}

// Check implements API.
func (c *Client) Check(ctx context.Context) (problems []string, err error) {
	return problems, c.get(ctx, "/v1/check", &problems)
}

func lunPath(iqn string, lun int) string {
	return fmt.Sprintf("/v1/targets/%s/luns/%d", url.PathEscape(iqn), lun)
}

func mediumPath(iqn string, lun int) string {
	return fmt.Sprintf("/v1/targets/%s/luns/%d/medium", url.PathEscape(iqn), lun)
}

func volumePath(name string) string { return "/v1/volumes/" + url.PathEscape(name) }

// imagePath keeps the slashes of a name.
func imagePath(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "/v1/images/" + strings.Join(parts, "/")
}
