package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"skylun/node"
)

// fake is an API with one volume.
type fake struct {
	API     // what is not written out panics
	volume  node.VolumeStatus
	content map[int64][]byte
	readErr error
	paused  bool
}

func (f *fake) Volumes(context.Context) ([]node.VolumeStatus, error) {
	return []node.VolumeStatus{f.volume}, nil
}

func (f *fake) Volume(_ context.Context, name string) (node.VolumeStatus, error) {
	switch name {
	case f.volume.Name:
		return f.volume, nil
	case "broken":
		return f.volume, errors.New("the disk is on fire")
	}
	return node.VolumeStatus{}, node.Failure(node.ErrNotFound, "volume "+name+": no such volume")
}

func (f *fake) Prefetch(_ context.Context, volume string) (node.VolumePrefetch, error) {
	if volume != "v1" {
		return node.VolumePrefetch{}, node.Failure(node.ErrNotFound, "no volume "+volume)
	}
	return node.VolumePrefetch{Volume: volume, Strategy: "idle", Paused: f.paused}, nil
}

func (f *fake) SetPrefetch(ctx context.Context, volume string, spec node.PrefetchSpec) (node.VolumePrefetch, error) {
	if spec.Paused != nil {
		f.paused = *spec.Paused
	}
	return f.Prefetch(ctx, volume)
}

func (f *fake) CreateVolume(_ context.Context, s node.VolumeSpec) (node.VolumeStatus, error) {
	if s.Name == f.volume.Name {
		return node.VolumeStatus{}, node.Failure(node.ErrExists, "volume "+s.Name+" already exists")
	}
	if s.Size == 0 {
		return node.VolumeStatus{}, node.Failure(node.ErrInvalid, "no size")
	}
	return node.VolumeStatus{Name: s.Name, Size: s.Size, Image: &node.ImageUse{Name: s.Image}}, nil
}

func (f *fake) DeleteVolume(_ context.Context, name string) error {
	return node.Failure(node.ErrInUse, "volume "+name+" is in use")
}

func (f *fake) ResizeVolume(_ context.Context, name string, s node.ResizeSpec) (node.VolumeStatus, error) {
	if !s.Force {
		return node.VolumeStatus{}, node.Failure(node.ErrInvalid, "too small")
	}
	return node.VolumeStatus{Name: name, Size: s.Size}, nil
}

func (f *fake) PinVolume(_ context.Context, name string, pin bool) (node.VolumeStatus, error) {
	if name == "blank" {
		return node.VolumeStatus{}, node.Failure(node.ErrInvalid, "no image")
	}
	return node.VolumeStatus{Name: name, Pinned: pin}, nil
}

func (f *fake) ReadVolume(_ context.Context, name string, g func([]byte, int64) error) error {
	if name != f.volume.Name {
		return node.Failure(node.ErrNotFound, "no such volume")
	}
	for off, p := range f.content {
		if err := g(p, off); err != nil {
			return err
		}
	}
	return f.readErr
}

func (f *fake) Image(_ context.Context, name string) (node.ImageStatus, error) {
	return node.ImageStatus{Name: name}, nil
}

func (f *fake) InsertMedia(_ context.Context, iqn string, lun int, s node.MediaSpec) (node.LUNStatus, error) {
	if s.Force {
		return node.LUNStatus{}, node.Failure(node.ErrInUse, "no force")
	}
	return node.LUNStatus{IQN: iqn, LUN: lun, Image: s.Image}, nil
}

func (f *fake) EjectMedia(_ context.Context, iqn string, lun int, force bool) (node.LUNStatus, error) {
	if !force {
		return node.LUNStatus{}, node.Failure(node.ErrInUse, "locked")
	}
	return node.LUNStatus{IQN: iqn, LUN: lun, Tray: "open"}, nil
}

func (f *fake) Status(context.Context) (node.Status, error) {
	return node.Status{
		Node: `odd "name"`, Version: "1", Started: time.Unix(1700000000, 0),
		Volumes: []node.VolumeStatus{f.volume},
		Caches: []node.CacheStatus{{Image: "a/b.vhd", Identity: "x", Size: 10, Cached: 4, Absent: 6, Misses: 3,
			Prefetch: &node.PrefetchStatus{Strategy: "idle", State: "yielding", Rate: 100, Left: 7, Filled: 11, Shared: 13}}, {Image: "closed"}},
		SCSI: node.CommandStatus{Commands: 7},
	}, nil
}

var discard = slog.New(slog.DiscardHandler)

// serve starts a server for api and returns a client of it.
func serve(t *testing.T, api API) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	s, err := Listen(path, api, discard)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c, path
}

func TestCalls(t *testing.T) {
	f := &fake{volume: node.VolumeStatus{Name: "v1", Size: 4096, Created: time.Unix(1, 0).UTC(), LUN: &node.LUNStatus{IQN: "iqn.x", LUN: 3}}}
	c, _ := serve(t, f)
	ctx := t.Context()

	list, err := c.Volumes(ctx)
	if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], f.volume) {
		t.Errorf("Volumes: %+v %v, want %+v", list, err, f.volume)
	}
	if v, err := c.Volume(ctx, "v1"); err != nil || !reflect.DeepEqual(v, f.volume) {
		t.Errorf("Volume: %+v %v", v, err)
	}
	if v, err := c.CreateVolume(ctx, node.VolumeSpec{Name: "n", Image: "i/j", Size: 512}); err != nil || v.Name != "n" || v.Size != 512 || v.Image.Name != "i/j" {
		t.Errorf("CreateVolume: %+v %v", v, err)
	}
	if v, err := c.ResizeVolume(ctx, "a/b", node.ResizeSpec{Size: 1024, Force: true}); err != nil || v.Name != "a/b" || v.Size != 1024 {
		t.Errorf("ResizeVolume: %+v %v", v, err)
	}
	yes := true
	if s, err := c.SetPrefetch(ctx, "v1", node.PrefetchSpec{Paused: &yes}); err != nil || !s.Paused || s.Strategy != "idle" {
		t.Errorf("SetPrefetch: %+v %v", s, err)
	}
	if s, err := c.SetPrefetch(ctx, "v1", node.PrefetchSpec{}); err != nil || !s.Paused {
		t.Errorf("SetPrefetch of nothing: %+v %v, want it paused as before", s, err)
	}
	if s, err := c.Prefetch(ctx, "v1"); err != nil || s.Volume != "v1" || !s.Paused {
		t.Errorf("Prefetch: %+v %v", s, err)
	}
	if _, err := c.Prefetch(ctx, "v9"); !errors.Is(err, node.ErrNotFound) {
		t.Errorf("Prefetch of no volume: %v", err)
	}
	for _, pin := range []bool{true, false} {
		if v, err := c.PinVolume(ctx, "a/b", pin); err != nil || v.Name != "a/b" || v.Pinned != pin {
			t.Errorf("PinVolume: %+v %v", v, err)
		}
	}
	for _, name := range []string{"plain", "dir/with space.vhd", "50%?#/x"} {
		if m, err := c.Image(ctx, name); err != nil || m.Name != name {
			t.Errorf("Image(%q): %+v %v", name, m, err)
		}
	}

	if l, err := c.InsertMedia(ctx, "iqn.x:y/z", 7, node.MediaSpec{Image: "a/b.iso"}); err != nil || l.IQN != "iqn.x:y/z" || l.LUN != 7 || l.Image != "a/b.iso" {
		t.Errorf("InsertMedia: %+v %v", l, err)
	}
	if l, err := c.EjectMedia(ctx, "iqn.x:y", 255, true); err != nil || l.LUN != 255 || l.Tray != "open" {
		t.Errorf("EjectMedia: %+v %v", l, err)
	}

	for _, e := range []struct {
		what string
		err  error
		kind error
		text string
	}{
		{"locked", second(c.EjectMedia(ctx, "iqn.x:y", 1, false)), node.ErrInUse, "locked"},
		{"forced", second(c.InsertMedia(ctx, "iqn.x:y", 1, node.MediaSpec{Force: true})), node.ErrInUse, "no force"},
		{"missing", second(c.Volume(ctx, "nope")), node.ErrNotFound, "volume nope: no such volume"},
		{"slash in a name", second(c.Volume(ctx, "a/b")), node.ErrNotFound, "volume a/b: no such volume"},
		{"existing", second(c.CreateVolume(ctx, node.VolumeSpec{Name: "v1"})), node.ErrExists, "volume v1 already exists"},
		{"invalid", second(c.CreateVolume(ctx, node.VolumeSpec{Name: "n"})), node.ErrInvalid, "no size"},
		{"used", c.DeleteVolume(ctx, "v1"), node.ErrInUse, "volume v1 is in use"},
		{"shrunk", second(c.ResizeVolume(ctx, "v1", node.ResizeSpec{Size: 512})), node.ErrInvalid, "too small"},
		{"blank", second(c.PinVolume(ctx, "blank", true)), node.ErrInvalid, "no image"},
		{"failed", second(c.Volume(ctx, "broken")), nil, "the disk is on fire"},
		{"read of nothing", c.ReadVolume(ctx, "nope", nil), node.ErrNotFound, "no such volume"},
	} {
		if e.err == nil || e.err.Error() != e.text || e.kind != nil && !errors.Is(e.err, e.kind) {
			t.Errorf("%s: %v, want %q", e.what, e.err, e.text)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReadVolume(t *testing.T) {
	big := make([]byte, maxChunk+5)
	for i := range big {
		big[i] = byte(i)
	}
	f := &fake{volume: node.VolumeStatus{Name: "v"}, content: map[int64][]byte{1 << 40: big}}
	c, _ := serve(t, f)
	got := []byte{}
	err := c.ReadVolume(t.Context(), "v", func(p []byte, off int64) error {
		if off != 1<<40+int64(len(got)) {
			return fmt.Errorf("chunk at %d", off)
		}
		got = append(got, p...)
		return nil
	})
	if err != nil || string(got) != string(big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	stop := errors.New("enough")
	if err := c.ReadVolume(t.Context(), "v", func([]byte, int64) error { return stop }); err != stop {
		t.Errorf("stopped by the caller: %v", err)
	}

	f.readErr = errors.New("medium error") // after data was sent
	if err := c.ReadVolume(t.Context(), "v", func([]byte, int64) error { return nil }); err == nil || !strings.Contains(err.Error(), "early") {
		t.Errorf("cut off: %v", err)
	}
	f.content = nil // before
	if err := c.ReadVolume(t.Context(), "v", nil); err == nil || err.Error() != "medium error" {
		t.Errorf("failed: %v", err)
	}
}

// TestCloseDrops closes a server while a call goes on.
func TestCloseDrops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	api := &slow{begun: make(chan struct{})}
	s, err := Listen(path, api, discard)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error)
	go func() {
		_, err := c.Volumes(context.Background())
		done <- err
	}()
	<-api.begun
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ended); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a call that was dropped succeeded")
	}
}

// slow is an API whose calls end with their context.
type slow struct {
	API
	begun chan struct{}
}

func (s *slow) Volumes(ctx context.Context) ([]node.VolumeStatus, error) {
	close(s.begun)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestBadRequests(t *testing.T) {
	_, path := serve(t, &fake{})
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	defer hc.CloseIdleConnections()
	for _, c := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/v2/status", "", 404, "GET /v2/status is no part of this API"},
		{"PUT", "/v1/volumes", "{}", 404, "PUT /v1/volumes is no part of this API"},
		{"POST", "/v1/volumes", "{", 400, "request body"},
		{"POST", "/v1/volumes", `{"nam": "x"}`, 400, "unknown field"},
		{"POST", "/v1/volumes", `{"name": "` + strings.Repeat("x", maxBody) + `"}`, 400, "too large"},
	} {
		req, err := http.NewRequest(c.method, "http://node"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.text) {
			t.Errorf("%s %s: %d %s, want %d and %q", c.method, c.path, resp.StatusCode, body, c.status, c.text)
		}
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	ctx := t.Context()
	if _, err := Dial(ctx, path); !errors.Is(err, node.ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("Dial without a socket: %v", err)
	}

	// What a process that was killed leaves behind.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(ctx, path); !errors.Is(err, node.ErrNotRunning) {
		t.Errorf("Dial of a dead socket: %v", err)
	}
	s, err := Listen(path, &fake{}, discard)
	if err != nil {
		t.Fatalf("Listen over a dead socket: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket: %v %v, want 0600", st.Mode(), err)
	}
	if _, err := Listen(path, &fake{}, discard); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("Listen over a living socket: %v", err)
	}
	c, err := Dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Volumes(ctx); err != nil {
		t.Errorf("after a second Listen: %v", err)
	}
	c.Close()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	if err := os.WriteFile(path, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, &fake{}, discard); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("Listen over a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "a file" {
		t.Error("the file was overwritten")
	}
	long := filepath.Join(dir, strings.Repeat("x", 110))
	if _, err := Listen(long, &fake{}, discard); err == nil || !strings.Contains(err.Error(), "shorter data_dir") {
		t.Errorf("Listen on a long path: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	_, path := serve(t, &fake{volume: node.VolumeStatus{Name: "v1", Size: 4096}})
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}}
	defer hc.CloseIdleConnections()
	resp, err := hc.Get("http://node/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{
		`skylun_info{node="odd \"name\"",version="1"} 1`,
		`skylun_start_time_seconds 1700000000`,
		`skylun_iscsi_commands_total 7`,
		`skylun_volume_size_bytes{volume="v1"} 4096`,
		`skylun_cache_misses_total{image="a/b.vhd",identity="x"} 3`,
		"# TYPE skylun_cache_absent_bytes gauge",
		`skylun_prefetch_state{image="a/b.vhd",identity="x",strategy="idle",state="yielding"} 1`,
		`skylun_prefetch_rate_bytes{image="a/b.vhd",identity="x"} 100`,
		`skylun_prefetch_left_seconds{image="a/b.vhd",identity="x"} 7`,
		`skylun_prefetch_filled_bytes_total{image="a/b.vhd",identity="x"} 11`,
		`skylun_cache_shared_bytes_total{image="a/b.vhd",identity="x"} 13`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no line %s in\n%s", want, body)
		}
	}
	// Every metric is announced once and has values of its own name only.
	seen := map[string]bool{}
	for line := range strings.Lines(string(body)) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if seen[name] {
				t.Errorf("announced twice: %s", name)
			}
			seen[name] = true
		}
	}
}
