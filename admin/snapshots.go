package admin

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"skylun/node"
)

// snapshots adds what the API has for snapshots.
func (h *handler) snapshots(m *http.ServeMux) {
	m.HandleFunc("GET /v1/snapshots", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return h.api.Snapshots(r.Context())
	}))
	m.HandleFunc("POST /v1/snapshots", take(h, http.StatusCreated, func(r *http.Request, spec node.SnapshotSpec) (any, error) {
		return h.api.CreateSnapshot(r.Context(), spec)
	}))
	m.HandleFunc("GET /v1/snapshots/{name}", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return h.api.Snapshot(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("DELETE /v1/snapshots/{name}", h.answer(http.StatusNoContent, func(r *http.Request) (any, error) {
		return nil, h.api.DeleteSnapshot(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("POST /v1/snapshots/{name}/rollback", take(h, http.StatusOK, func(r *http.Request, spec node.RollbackSpec) (any, error) {
		return h.api.RollbackSnapshot(r.Context(), r.PathValue("name"), spec)
	}))
	m.HandleFunc("GET /v1/snapshots/{name}/content", func(w http.ResponseWriter, r *http.Request) {
		h.content(w, r, "snapshot", r.PathValue("name"), h.api.ReadSnapshot)
	})
	m.HandleFunc("GET /v1/snapshots/{name}/volumes/{volume}/content", func(w http.ResponseWriter, r *http.Request) {
		h.content(w, r, "snapshot", r.PathValue("name")+"/"+r.PathValue("volume"), h.api.ReadSnapshot)
	})
}

// Snapshots implements API.
func (c *Client) Snapshots(ctx context.Context) (s []node.SnapshotStatus, err error) {
	return s, c.get(ctx, "/v1/snapshots", &s)
}

// Snapshot implements API.
func (c *Client) Snapshot(ctx context.Context, name string) (s node.SnapshotStatus, err error) {
	return s, c.get(ctx, snapshotPath(name), &s)
}

// CreateSnapshot implements API.
func (c *Client) CreateSnapshot(ctx context.Context, spec node.SnapshotSpec) (s node.SnapshotStatus, err error) {
	return s, c.call(ctx, http.MethodPost, "/v1/snapshots", spec, &s)
}

// DeleteSnapshot implements API.
func (c *Client) DeleteSnapshot(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, snapshotPath(name), nil, nil)
}

// RollbackSnapshot implements API.
func (c *Client) RollbackSnapshot(ctx context.Context, name string, spec node.RollbackSpec) (v []node.VolumeStatus, err error) {
	return v, c.call(ctx, http.MethodPost, snapshotPath(name)+"/rollback", spec, &v)
}

// ReadSnapshot implements API.
func (c *Client) ReadSnapshot(ctx context.Context, ref string, f func(p []byte, off int64) error) error {
	path := snapshotPath(ref)
	if name, volume, ok := strings.Cut(ref, "/"); ok {
		path = snapshotPath(name) + "/volumes/" + url.PathEscape(volume)
	}
	return c.content(ctx, path+"/content", f)
}

func snapshotPath(name string) string { return "/v1/snapshots/" + url.PathEscape(name) }
