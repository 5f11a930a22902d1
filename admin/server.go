package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"skylun/node"
)

// maxBody is the most bytes a request may have.
const maxBody = 1 << 20

// handler answers requests with what an API says.
type handler struct {
	api API
	log *slog.Logger
}

// NewHandler returns the HTTP handler that serves api.
func NewHandler(api API, log *slog.Logger) http.Handler {
	h := &handler{api, log}
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/status", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Status(r.Context())
	}))
	m.HandleFunc("GET /v1/luns", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.LUNs(r.Context())
	}))
	m.HandleFunc("GET /v1/check", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Check(r.Context())
	}))
	m.HandleFunc("GET /v1/volumes", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Volumes(r.Context())
	}))
	m.HandleFunc("POST /v1/volumes", take(h, http.StatusCreated, func(r *http.Request, spec node.VolumeSpec) (any, error) {
		return api.CreateVolume(r.Context(), spec)
	}))
	m.HandleFunc("GET /v1/volumes/{name}", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Volume(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("DELETE /v1/volumes/{name}", h.answer(http.StatusNoContent, func(r *http.Request) (any, error) {
		return nil, api.DeleteVolume(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("PUT /v1/volumes/{name}/size", take(h, http.StatusOK, func(r *http.Request, spec node.ResizeSpec) (any, error) {
		return api.ResizeVolume(r.Context(), r.PathValue("name"), spec)
	}))
	m.HandleFunc("GET /v1/volumes/{name}/prefetch", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Prefetch(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("PUT /v1/volumes/{name}/prefetch", take(h, http.StatusOK, func(r *http.Request, spec node.PrefetchSpec) (any, error) {
		return api.SetPrefetch(r.Context(), r.PathValue("name"), spec)
	}))
	m.HandleFunc("PUT /v1/volumes/{name}/pinned", take(h, http.StatusOK, func(r *http.Request, spec pinSpec) (any, error) {
		return api.PinVolume(r.Context(), r.PathValue("name"), spec.Pinned)
	}))
	m.HandleFunc("GET /v1/volumes/{name}/content", func(w http.ResponseWriter, r *http.Request) {
		h.content(w, r, "volume", r.PathValue("name"), api.ReadVolume)
	})
	h.snapshots(m)
	m.HandleFunc("GET /v1/local", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Local(r.Context())
	}))
	m.HandleFunc("PUT /v1/local/rebalance", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Rebalance(r.Context())
	}))
	m.HandleFunc("PUT /v1/local/leaving", take(h, http.StatusOK, func(r *http.Request, spec node.LeaveSpec) (any, error) {
		return api.LeaveMember(r.Context(), spec)
	}))
	m.HandleFunc("DELETE /v1/local/rebalance", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.StopRebalance(r.Context())
	}))
	m.HandleFunc("GET /v1/images", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Images(r.Context())
	}))
	m.HandleFunc("GET /v1/images/{name...}", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		return api.Image(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("DELETE /v1/images/{name...}", h.answer(http.StatusNoContent, func(r *http.Request) (any, error) {
		return nil, api.DeleteImage(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("PUT /v1/targets/{iqn}/luns/{lun}", take(h, http.StatusCreated, func(r *http.Request, spec mapSpec) (any, error) {
		number, err := lunOf(r)
		if err != nil {
			return nil, err
		}
		return api.MapLUN(r.Context(), r.PathValue("iqn"), number, spec.Volume)
	}))
	m.HandleFunc("DELETE /v1/targets/{iqn}/luns/{lun}", h.answer(http.StatusNoContent, func(r *http.Request) (any, error) {
		number, err := lunOf(r)
		if err != nil {
			return nil, err
		}
		return nil, api.UnmapLUN(r.Context(), r.PathValue("iqn"), number, r.URL.Query().Get("force") == "true")
	}))
	m.HandleFunc("PUT /v1/targets/{iqn}/luns/{lun}/medium", take(h, http.StatusOK, func(r *http.Request, spec node.MediaSpec) (any, error) {
		number, err := lunOf(r)
		if err != nil {
			return nil, err
		}
		return api.InsertMedia(r.Context(), r.PathValue("iqn"), number, spec)
	}))
	m.HandleFunc("DELETE /v1/targets/{iqn}/luns/{lun}/medium", h.answer(http.StatusOK, func(r *http.Request) (any, error) {
		number, err := lunOf(r)
		if err != nil {
			return nil, err
		}
		return api.EjectMedia(r.Context(), r.PathValue("iqn"), number, r.URL.Query().Get("force") == "true")
	}))
	m.HandleFunc("GET /metrics", h.metrics)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, node.Failure(node.ErrNotFound, r.Method+" "+r.URL.Path+" is no part of this API"))
	})
	return m
}

// pinSpec says whether a volume is to be pinned.
type pinSpec struct {
	Pinned bool `json:"pinned"`
}

// mapSpec says what a logical unit number is to point to.
type mapSpec struct {
	Volume string `json:"volume"`
}

// lunOf returns the logical unit number in the path.
func lunOf(r *http.Request) (int, error) {
	number, err := strconv.Atoi(r.PathValue("lun"))
	if err != nil {
		return 0, node.Failure(node.ErrInvalid, fmt.Sprintf("%q is not a LUN", r.PathValue("lun")))
	}
	return number, nil
}

// answer answers with what f returns; nil: with nothing.
func (h *handler) answer(status int, f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		h.reply(w, r, status, v, err)
	}
}

// take is answer for requests that have a body.
func take[T any](h *handler, status int, f func(r *http.Request, spec T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var spec T
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&spec); err != nil {
			h.fail(w, r, node.Failure(node.ErrInvalid, fmt.Sprintf("request body: %v", err)))
			return
		}
		v, err := f(r, spec)
		h.reply(w, r, status, v, err)
	}
}

// content answers with what read reads.
func (h *handler) content(w http.ResponseWriter, r *http.Request, what, name string, read func(context.Context, string, func([]byte, int64) error) error) {
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusOK)
		}
	}
	err := read(r.Context(), name, func(p []byte, off int64) error {
		begin()
		return writeChunk(w, p, off)
	})
	if err == nil {
		begin()
		err = writeContentEnd(w)
	}
	switch {
	case err == nil || r.Context().Err() != nil: // done, or the client went
	case begun: // too late for a status: the missing end tells the client
		h.log.Error("export ended early", what, name, "err", err)
	default:
		h.fail(w, r, err)
	}
}

func (h *handler) reply(w http.ResponseWriter, r *http.Request, status int, v any, err error) {
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if v == nil {
		w.WriteHeader(status)
		return
	}
	writeJSON(w, status, v)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// errorBody is the body of every answer that is not a success.
type errorBody struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

// kinds says how errors travel.
var kinds = []struct {
	code   string
	status int
	err    error
}{
	{"not_found", http.StatusNotFound, node.ErrNotFound},
	{"exists", http.StatusConflict, node.ErrExists},
	{"in_use", http.StatusConflict, node.ErrInUse},
	{"invalid", http.StatusBadRequest, node.ErrInvalid},
	{"failed", http.StatusInternalServerError, nil},
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // nobody waits for the answer
	}
	for _, k := range kinds {
		if k.err == nil || errors.Is(err, k.err) {
			writeJSON(w, k.status, errorBody{err.Error(), k.code})
			return
		}
	}
}

// errorOf returns the error that a response body tells.
func errorOf(resp *http.Response) error {
	var b errorBody
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err := json.Unmarshal(body, &b); err != nil || b.Error == "" {
		return fmt.Errorf("the node answered %s", resp.Status)
	}
	for _, k := range kinds {
		if k.code == b.Code && k.err != nil {
			return node.Failure(k.err, b.Error)
		}
	}
	return errors.New(b.Error)
}
