package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"skylun/admin"
	"skylun/block"
	"skylun/node"
	"skylun/test/initiator"
)

// coldImage is the image that all sides read from the shaped store.
const coldImage = "os.img"

// A coldSide starts a server that has nothing of the image locally.
type coldSide struct {
	name  string
	needs string // the program it takes
	start func(c *cold, dir string, cfg coldConfig) (*coldServer, error)
}

// coldConfig is what a row wants of our side; the others have their way.
type coldConfig struct {
	prefetch string
	volumes  int           // 0: one
	record   time.Duration // for how long a boot profile is recorded
}

// coldServer is one that runs.
type coldServer struct {
	side
	dir   string
	disks func(volume, connections int) (block.Reader, func(), error)
}

var coldSides = map[string]coldSide{
	"skylun":       {name: "skylun", start: startColdSkylun},
	"nbdkit":       {name: "nbdkit curl, cow, cache", needs: "nbdkit", start: startNbdkit},
	"copy-on-read": {name: "qcow2 copy-on-read", needs: "qemu-nbd", start: startQemuNBD},
}

func startColdSkylun(c *cold, dir string, cfg coldConfig) (*coldServer, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	lines, key := c.store.Config(filepath.Join(dir, "key"))
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte(key), 0o600); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`data_dir: %s/data
%scache: {prefetch: %s, boot_profile: %v}
portals: ["%s"]
limits: {sessions: 1024, sessions_per_source: 1024, logins: 256, logins_per_source: 256}
targets:
  - iqn: %s
    luns:
`, dir, lines, cfg.prefetch, cfg.record, addr, iqn)
	for i := range max(cfg.volumes, 1) {
		config += fmt.Sprintf("      - {lun: %d, disk: {volume: v%d, image: %s}}\n", i, i, coldImage)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s := &coldServer{side: side{name: "skylun", addr: addr}, dir: dir}
	s.disks = func(volume, connections int) (block.Reader, func(), error) {
		return dialDisks(addr, volume, connections)
	}
	return s, s.start(dir, exec.Command(c.program, "serve", "-c", file))
}

// startNbdkit runs nbdkit as its manual describes a cached remote disk:
// writes to a copy, reads to a cache, both in local files.
func startNbdkit(c *cold, dir string, _ coldConfig) (*coldServer, error) {
	addr, port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nbdkit", "--foreground", "--exit-with-parent", "--ipaddr", "127.0.0.1", "--port", port,
		"--filter=cow", "--filter=cache", "curl", "url="+c.store.URL(coldImage), "cache-on-read=true")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return startNBD(dir, "nbdkit", addr, cmd)
}

// startQemuNBD runs qemu-nbd over a qcow2 file whose backing file is the image,
// and which keeps what was read.
func startQemuNBD(c *cold, dir string, _ coldConfig) (*coldServer, error) {
	addr, port, err := freePort()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "disk.qcow2")
	if _, err := output(context.Background(), "qemu-img", "create", "-q", "-f", "qcow2", file, fmt.Sprint(c.size)); err != nil {
		return nil, err
	}
	cmd := exec.Command("qemu-nbd", "--persistent", "--shared=16", "--bind", "127.0.0.1", "--port", port, "--image-opts",
		"driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename="+file+
			",file.backing.driver=raw,file.backing.file.driver=http,file.backing.file.url="+c.store.URL(coldImage))
	return startNBD(dir, "qemu-nbd", addr, cmd)
}

func startNBD(dir, name, addr string, cmd *exec.Cmd) (*coldServer, error) {
	s := &coldServer{side: side{name: name, addr: addr}, dir: dir}
	s.disks = func(int, int) (block.Reader, func(), error) {
		d, err := dialNBD(addr)
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	}
	return s, s.start(dir, cmd)
}

// end stops a server as its operator would, and waits until it has ended.
func (s *coldServer) end() error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	s.cmd.Wait()
	return s.log.Close()
}

// waitLocal returns when all of the image is local.
func (s *coldServer) waitLocal(ctx context.Context) error {
	client, err := admin.Dial(ctx, filepath.Join(s.dir, "data", "skylun.sock"))
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		client, err = admin.Dial(ctx, filepath.Join(s.dir, "data", "skylun.sock")) // it is there a moment after the portal
	}
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if len(st.Caches) == 1 && st.Caches[0].Absent == 0 {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %s of the image is local", ctx.Err(), node.Percent(st.Caches[0].Local()))
		}
	}
}

// disks is several sessions to one unit: as many reads are in flight.
type disks struct {
	idle chan *initiator.Disk
	size int64
}

func dialDisks(addr string, lun, sessions int) (_ block.Reader, hangUp func(), err error) {
	d := disks{idle: make(chan *initiator.Disk, sessions)}
	var conns []*initiator.Conn
	hangUp = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for i := range sessions {
		conn, err := initiator.Dial(addr)
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		conns = append(conns, conn)
		name := fmt.Sprintf("iqn.2026-11.com.example:guest-%d-%d", lun, i)
		if _, err := conn.Login(initiator.Options{Initiator: name, Target: iqn}); err != nil {
			hangUp()
			return nil, nil, err
		}
		disk, err := conn.Disk(uint8(lun))
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		d.size = disk.Size()
		d.idle <- disk
	}
	return d, hangUp, nil
}

func (d disks) Size() int64 { return d.size }

func (d disks) ReadAt(ctx context.Context, p []byte, off int64) error {
	disk := <-d.idle
	defer func() { d.idle <- disk }()
	return disk.ReadAt(ctx, p, off)
}

func freePort() (addr, port string, err error) {
	if addr, err = freeAddr(); err != nil {
		return "", "", err
	}
	return addr, addr[len("127.0.0.1:"):], nil
}
