package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"skylun/node"
)

// snapshots adds what the API has for snapshots.
func (h *handler) snapshots(m *http.ServeMux) {
	m.HandleFunc("GET /v1/snapshots", func(w http.ResponseWriter, r *http.Request) {
		v, err := h.api.Snapshots(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("POST /v1/snapshots", func(w http.ResponseWriter, r *http.Request) {
		var spec node.SnapshotSpec
		if h.decode(w, r, &spec) {
			v, err := h.api.CreateSnapshot(r.Context(), spec)
			h.reply(w, r, http.StatusCreated, v, err)
		}
	})
	m.HandleFunc("GET /v1/snapshots/{name}", func(w http.ResponseWriter, r *http.Request) {
		v, err := h.api.Snapshot(r.Context(), r.PathValue("name"))
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("DELETE /v1/snapshots/{name}", func(w http.ResponseWriter, r *http.Request) {
		h.reply(w, r, http.StatusNoContent, nil, h.api.DeleteSnapshot(r.Context(), r.PathValue("name")))
	})
	m.HandleFunc("POST /v1/snapshots/{name}/rollback", func(w http.ResponseWriter, r *http.Request) {
		var spec node.RollbackSpec
		if h.decode(w, r, &spec) {
			v, err := h.api.RollbackSnapshot(r.Context(), r.PathValue("name"), spec)
			h.reply(w, r, http.StatusOK, v, err)
		}
	})
	m.HandleFunc("GET /v1/snapshots/{name}/content", func(w http.ResponseWriter, r *http.Request) {
		h.content(w, r, "snapshot", r.PathValue("name"), h.api.ReadSnapshot)
	})
	m.HandleFunc("GET /v1/snapshots/{name}/volumes/{volume}/content", func(w http.ResponseWriter, r *http.Request) {
		h.content(w, r, "snapshot", r.PathValue("name")+"/"+r.PathValue("volume"), h.api.ReadSnapshot)
	})
}

// decode fills v with the body of a request, or answers that it cannot.
func (h *handler) decode(w http.ResponseWriter, r *http.Request, v any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err != nil {
		h.fail(w, r, node.Failure(node.ErrInvalid, fmt.Sprintf("request body: %v", err)))
	}
	return err == nil
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
