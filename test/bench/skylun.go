package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startSkylun runs the server itself over an image in a directory next to its
// data. The unit for reading is an overlay that nothing was written to: what is
// read is the cache of the image. The other units are overlays of the same
// image.
func startSkylun(dir string, o options) (*side, error) { return startServer(dir, o, "") }

// startServer is startSkylun with further lines of the configuration.
func startServer(dir string, o options, more string) (*side, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &side{name: "skylun", addr: addr, lun: map[unit]int{readUnit: 0, ownUnit: 1, freshUnit: 2}, fresh: o.freshUnits()}
	program, err := o.program(dir)
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, `data_dir: %[1]s/data
blobstore: {url: "file:%[1]s/blobs"}
cache: {prefetch: off}
portals: ["%[2]s"]
targets:
  - iqn: %[3]s
    luns:
`, dir, addr, iqn)
	for i := range s.fresh + 2 {
		fmt.Fprintf(&config, "      - {lun: %d, disk: {volume: v%d, image: base}}\n", i, i)
	}
	config.WriteString(more)
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return nil, err
	}
	base := filepath.Join(dir, "base.img")
	if err := writeRandom(base, o.size); err != nil {
		return nil, err
	}
	if _, err := output(context.Background(), program, "image", "import", base, "base", "-c", file); err != nil {
		return nil, err
	}
	os.Remove(base)
	if err := s.start(dir, exec.Command(program, "serve", "-c", file)); err != nil {
		return s, err
	}
	if err := s.cacheAll(program, file); err != nil {
		return s, err
	}
	if err := settle(filepath.Join(dir, "data")); err != nil {
		return s, err
	}
	fill := load{Write: true, Once: true, Size: 4 * kib, Depth: 32}
	if _, err := fill.child(context.Background(), addr, iqn, s.lun[ownUnit]); err != nil {
		return s, err
	}
	return s, nil
}

// cacheAll reads the image through the server until all of it is cached. The
// server answers first and stores copies when it has the time, so one pass may
// not be enough.
func (s *side) cacheAll(program, config string) error {
	read := load{Size: 1024 * kib, Depth: 2, Once: true}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if _, err := read.child(context.Background(), s.addr, iqn, s.lun[readUnit]); err != nil {
			return err
		}
		out, err := output(context.Background(), program, "status", "-o", "json", "-c", config)
		if err != nil {
			return err
		}
		var status struct {
			Caches []struct{ Absent int64 }
		}
		if err := json.Unmarshal([]byte(out), &status); err != nil {
			return err
		}
		if len(status.Caches) == 1 && status.Caches[0].Absent == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the image does not get into the cache: %s", out)
		}
	}
}

// program returns the server's binary, which it builds unless one was named.
func (o options) program(dir string) (string, error) {
	if o.binary != "" {
		return o.binary, nil
	}
	name := filepath.Join(dir, "skylun")
	cmd := exec.Command("go", "build", "-o", name, "skylun")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
}
