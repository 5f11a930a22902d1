package blobstore

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// identity tells one content of a file from the next: writing changes the
// modification time, replacing the inode. Formatted as in Info.Identity.
type identity struct {
	size  int64
	mtime int64 // nanoseconds since 1970
	inode uint64
}

func (id identity) String() string {
	return fmt.Sprintf("%d-%d-%d", id.size, id.mtime, id.inode)
}

func parseIdentity(s string) (identity, error) {
	var id identity
	if _, err := fmt.Sscanf(s, "%d-%d-%d", &id.size, &id.mtime, &id.inode); err != nil || id.String() != s {
		return identity{}, fmt.Errorf("%q is not the identity of a file", s)
	}
	return id, nil
}

func identityOf(f *os.File) (identity, error) {
	fi, err := f.Stat()
	if err != nil {
		return identity{}, err
	}
	id := identity{size: fi.Size(), mtime: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		id.inode = st.Ino
	}
	return id, nil
}

// mtimeTick is longer than the steps in which file systems count modification
// times.
const mtimeTick = 25 * time.Millisecond

// settledIdentity is identityOf at a time when any further write will change
// the identity: two writes in one tick of the file system's clock leave the
// same modification time, so it waits until the tick of the last one is over.
func settledIdentity(ctx context.Context, f *os.File) (identity, error) {
	for waited := time.Duration(0); ; {
		id, err := identityOf(f)
		if err != nil {
			return identity{}, err
		}
		age := time.Since(time.Unix(0, id.mtime))
		// A clock that is ahead of ours cannot be waited for, and who keeps
		// writing is told so by the first read.
		if age < 0 || age >= mtimeTick || waited >= 4*mtimeTick {
			return id, nil
		}
		if err := sleep(ctx, mtimeTick-age); err != nil {
			return identity{}, err
		}
		waited += mtimeTick - age
	}
}
