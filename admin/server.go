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
	m.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Status(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("GET /v1/luns", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.LUNs(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("GET /v1/check", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Check(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("GET /v1/volumes", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Volumes(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("POST /v1/volumes", h.createVolume)
	m.HandleFunc("GET /v1/volumes/{name}", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Volume(r.Context(), r.PathValue("name"))
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("DELETE /v1/volumes/{name}", func(w http.ResponseWriter, r *http.Request) {
		h.reply(w, r, http.StatusNoContent, nil, api.DeleteVolume(r.Context(), r.PathValue("name")))
	})
	m.HandleFunc("PUT /v1/volumes/{name}/size", h.resizeVolume)
	m.HandleFunc("GET /v1/volumes/{name}/prefetch", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Prefetch(r.Context(), r.PathValue("name"))
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("PUT /v1/volumes/{name}/prefetch", h.setPrefetch)
	m.HandleFunc("PUT /v1/volumes/{name}/pinned", h.pinVolume)
	m.HandleFunc("GET /v1/volumes/{name}/content", func(w http.ResponseWriter, r *http.Request) {
		h.content(w, r, "volume", r.PathValue("name"), api.ReadVolume)
	})
	h.snapshots(m)
	m.HandleFunc("GET /v1/local", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Local(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("PUT /v1/local/rebalance", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Rebalance(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("PUT /v1/local/leaving", h.leaveMember)
	m.HandleFunc("DELETE /v1/local/rebalance", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.StopRebalance(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("GET /v1/images", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Images(r.Context())
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("GET /v1/images/{name...}", func(w http.ResponseWriter, r *http.Request) {
		v, err := api.Image(r.Context(), r.PathValue("name"))
		h.reply(w, r, http.StatusOK, v, err)
	})
	m.HandleFunc("DELETE /v1/images/{name...}", func(w http.ResponseWriter, r *http.Request) {
		h.reply(w, r, http.StatusNoContent, nil, api.DeleteImage(r.Context(), r.PathValue("name")))
	})
	m.HandleFunc("PUT /v1/targets/{iqn}/luns/{lun}", h.mapLUN)
	m.HandleFunc("DELETE /v1/targets/{iqn}/luns/{lun}", h.unmapLUN)
	m.HandleFunc("PUT /v1/targets/{iqn}/luns/{lun}/medium", h.insertMedia)
	m.HandleFunc("DELETE /v1/targets/{iqn}/luns/{lun}/medium", h.ejectMedia)
	m.HandleFunc("GET /metrics", h.metrics)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, node.Failure(node.ErrNotFound, r.Method+" "+r.URL.Path+" is no part of this API"))
	})
	return m
}

func (h *handler) createVolume(w http.ResponseWriter, r *http.Request) {
	var spec node.VolumeSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.CreateVolume(r.Context(), spec)
	h.reply(w, r, http.StatusCreated, v, err)
}

func (h *handler) leaveMember(w http.ResponseWriter, r *http.Request) {
	var spec node.LeaveSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.LeaveMember(r.Context(), spec)
	h.reply(w, r, http.StatusOK, v, err)
}

func (h *handler) resizeVolume(w http.ResponseWriter, r *http.Request) {
	var spec node.ResizeSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.ResizeVolume(r.Context(), r.PathValue("name"), spec)
	h.reply(w, r, http.StatusOK, v, err)
}

func (h *handler) setPrefetch(w http.ResponseWriter, r *http.Request) {
	var spec node.PrefetchSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.SetPrefetch(r.Context(), r.PathValue("name"), spec)
	h.reply(w, r, http.StatusOK, v, err)
}

// pinSpec says whether a volume is to be pinned.
type pinSpec struct {
	Pinned bool `json:"pinned"`
}

func (h *handler) pinVolume(w http.ResponseWriter, r *http.Request) {
	var spec pinSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.PinVolume(r.Context(), r.PathValue("name"), spec.Pinned)
	h.reply(w, r, http.StatusOK, v, err)
}

// mapSpec says what a logical unit number is to point to.
type mapSpec struct {
	Volume string `json:"volume"`
}

func (h *handler) mapLUN(w http.ResponseWriter, r *http.Request) {
	number, ok := h.lun(w, r)
	if !ok {
		return
	}
	var spec mapSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.MapLUN(r.Context(), r.PathValue("iqn"), number, spec.Volume)
	h.reply(w, r, http.StatusCreated, v, err)
}

func (h *handler) unmapLUN(w http.ResponseWriter, r *http.Request) {
	if number, ok := h.lun(w, r); ok {
		err := h.api.UnmapLUN(r.Context(), r.PathValue("iqn"), number, r.URL.Query().Get("force") == "true")
		h.reply(w, r, http.StatusNoContent, nil, err)
	}
}

func (h *handler) insertMedia(w http.ResponseWriter, r *http.Request) {
	number, ok := h.lun(w, r)
	if !ok {
		return
	}
	var spec node.MediaSpec
	if !h.decode(w, r, &spec) {
		return
	}
	v, err := h.api.InsertMedia(r.Context(), r.PathValue("iqn"), number, spec)
	h.reply(w, r, http.StatusOK, v, err)
}

func (h *handler) ejectMedia(w http.ResponseWriter, r *http.Request) {
	number, ok := h.lun(w, r)
	if !ok {
		return
	}
	v, err := h.api.EjectMedia(r.Context(), r.PathValue("iqn"), number, r.URL.Query().Get("force") == "true")
	h.reply(w, r, http.StatusOK, v, err)
}

// lun returns the logical unit number in the path, or answers that it is none.
func (h *handler) lun(w http.ResponseWriter, r *http.Request) (number int, ok bool) {
	number, err := strconv.Atoi(r.PathValue("lun"))
	if err != nil {
		h.fail(w, r, node.Failure(node.ErrInvalid, fmt.Sprintf("%q is not a LUN", r.PathValue("lun"))))
	}
	return number, err == nil
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
