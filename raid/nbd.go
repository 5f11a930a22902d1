package raid

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"skylun/raid/nbd"
)

// parseNBD returns socket and export of unix:SOCKET?export=NAME.
func parseNBD(where string) (socket, export string, err error) {
	rest, ok := strings.CutPrefix(where, "unix:")
	socket, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if !ok || socket == "" || err != nil {
		return "", "", fmt.Errorf("%q is not an NBD export: want unix:SOCKET, or unix:SOCKET?export=NAME", where)
	}
	for key := range values {
		if key != "export" {
			return "", "", fmt.Errorf("%q: unknown %q; want unix:SOCKET?export=NAME", where, key)
		}
	}
	return socket, values.Get("export"), nil
}

// CheckNBD tells what is wrong with how an export is written.
func CheckNBD(where string) error {
	_, _, err := parseNBD(where)
	return err
}

// nbdDevice is an NBD export: who allocates is its server's business.
type nbdDevice struct {
	*nbd.Client
	lock io.Closer

	mu    sync.Mutex
	stamp []byte // guarded by mu: what the export begins with; nil: not known
}

// openNBD connects to an export, for this process alone.
func openNBD(where string) (_ *nbdDevice, err error) {
	socket, export, err := parseNBD(where)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(socket); err == nil {
		socket = real
	}
	d := &nbdDevice{}
	if d.lock, err = lockName(where, socket+"?"+export); err != nil {
		return nil, err
	}
	if d.Client, err = nbd.Dial(nbd.Config{Socket: socket, Export: export, Check: d.check}); err != nil {
		d.lock.Close()
		return nil, memberError(err)
	}
	return d, nil
}

// lockName keeps a name for this process, by an address that nothing else can
// listen on meanwhile: an export has no file that could be locked.
func lockName(where, name string) (io.Closer, error) {
	l, err := net.Listen("unix", fmt.Sprintf("@skylun-member-%x", sha256.Sum256([]byte(name))))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("%w: %s is in use by another node; stop that one, or name another member", ErrMember, where)
	}
	return l, err
}

// check refuses an export that has taken the place of another while the
// connection was away.
func (d *nbdDevice) check(read func(p []byte, off int64) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stamp == nil {
		return nil
	}
	p := make([]byte, stampSize)
	if err := read(p, 0); err != nil {
		return err
	}
	if !bytes.Equal(p, d.stamp) {
		return errors.New("the export is another one than before")
	}
	return nil
}

// know remembers what the export begins with.
func (d *nbdDevice) know(p []byte, off int64) {
	if off == 0 && len(p) == stampSize {
		d.mu.Lock()
		d.stamp = bytes.Clone(p)
		d.mu.Unlock()
	}
}

func (d *nbdDevice) ReadAt(p []byte, off int64) error {
	if err := d.Client.ReadAt(p, off); err != nil {
		return memberError(err)
	}
	d.know(p, off)
	return nil
}

// TryReadAt would have to wait for the server.
func (d *nbdDevice) TryReadAt([]byte, int64) (done bool, err error) { return false, nil }

func (d *nbdDevice) WriteAt(p []byte, off int64) error {
	if err := d.Client.WriteAt(p, off); err != nil {
		return memberError(err)
	}
	d.know(p, off)
	return nil
}

func (d *nbdDevice) Zero(off, n int64) error {
	if err := d.Client.Zero(off, n); err != nil {
		return memberError(err)
	}
	return nil
}

func (d *nbdDevice) Sync() error {
	if err := d.Flush(); err != nil {
		return memberError(err)
	}
	return nil
}

func (d *nbdDevice) Close() error { return errors.Join(d.Client.Close(), d.lock.Close()) }
