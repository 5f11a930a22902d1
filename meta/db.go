package meta

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Version is the schema that this package writes.
const Version = 4

// Errors that callers tell apart.
var (
	ErrLocked   = errors.New("in use by another process")
	ErrVersion  = errors.New("written by a newer version of skylun")
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrCorrupt  = errors.New("damaged")
)

// lockTimeout bounds the wait for a file that another process has open.
const lockTimeout = 100 * time.Millisecond

var (
	bucketNode    = []byte("node")
	bucketVolumes = []byte("volumes")
	bucketCaches  = []byte("caches")
	bucketExtents = []byte("extents")
	bucketJournal = []byte("journal")
	bucketUnits   = []byte("units")
	bucketLayers  = []byte("layers")
	bucketSnaps   = []byte("snapshots")
	bucketRecords = []byte("records")

	// buckets are those of each version, in addition to those of the one
	// before.
	buckets = [Version + 1][][]byte{
		1: {bucketNode, bucketVolumes, bucketCaches, bucketExtents, bucketJournal},
		2: {bucketUnits},
		3: {}, // the journal is a file, and the bucket of it stays empty
		4: {bucketLayers, bucketSnaps, bucketRecords},
	}

	keyVersion = []byte("version")
	keyJournal = []byte("journal")
)

// DB is an open metadata file. Its methods are safe for parallel calls.
type DB struct {
	bolt    *bbolt.DB
	journal *journal

	folds     chan struct{} // the journal is long
	stop      chan struct{} // closed to end the folding goroutine
	stopped   sync.WaitGroup
	folding   sync.Mutex // held by a fold, before the locks of journal
	appended  atomic.Uint64
	foldEvery uint64      // journal records between two folds
	foldFail  func(error) // told about a fold that failed, nil: nobody
}

// Options are the parts of a DB that its user may supply.
type Options struct {
	// FoldFailed is told when moving journal records into extents failed.
	// Nothing is lost by that: the records stay, and it is tried again after
	// the next flush.
	FoldFailed func(error)

	// FoldEvery is how many journal records there are between two folds; 0:
	// as many as are good, negative: they are folded only by Fold.
	FoldEvery int

	// JournalSize is how many bytes a journal has that is made by Open; 0: as
	// many as are good.
	JournalSize int64
}

// Open opens the file at path, creating it with mode 0600 when it does not
// exist. It fails at once with ErrLocked when another process has it open,
// with ErrVersion when its schema is newer than Version, and with ErrCorrupt
// when it is not a metadata file.
func Open(path string, opt Options) (*DB, error) {
	db, err := open(path, false)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	j, err := startJournal(db, path, cmp.Or(opt.JournalSize, journalDefault))
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	d := &DB{bolt: db, journal: j, folds: make(chan struct{}, 1), stop: make(chan struct{}), foldFail: opt.FoldFailed,
		foldEvery: uint64(cmp.Or(max(opt.FoldEvery, 0), foldEvery))}
	if opt.FoldEvery < 0 {
		d.foldEvery = math.MaxUint64
	}
	d.stopped.Go(d.foldLoop)
	return d, nil
}

func open(path string, readOnly bool) (_ *bbolt.DB, err error) {
	st, err := os.Stat(path)
	created := errors.Is(err, os.ErrNotExist)
	if created && !readOnly {
		defer func() {
			if err != nil && !errors.Is(err, ErrLocked) {
				os.Remove(path) // on a full disk half a file would be left
			}
		}()
	} else if err == nil && st.Size() > 0 {
		if err := checkLength(path, st.Size()); err != nil {
			return nil, err
		}
	}
	db, err := openBolt(path, readOnly)
	if err != nil {
		return nil, err
	}
	if readOnly {
		err = db.View(checkVersion)
	} else {
		err = db.Update(initialise)
	}
	if err == nil && created {
		err = syncDir(filepath.Dir(path)) // the file itself survives a power cut
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func openBolt(path string, readOnly bool) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        lockTimeout,
		ReadOnly:       readOnly,
		NoFreelistSync: true, // the free list is rebuilt at open: one page less in every commit
		FreelistType:   bbolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrLocked
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return db, err
}

// checkLength tells whether all pages that the file refers to are in it.
// Opened for writing, bbolt reads them in memory that the file is mapped to:
// a page that is not there ends the process.
func checkLength(path string, size int64) error {
	db, err := openBolt(path, true)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > size {
			return fmt.Errorf("%w: cut short, %d of %d bytes are there", ErrCorrupt, size, tx.Size())
		}
		return nil
	})
}

// initialise creates the schema in an empty file, checks that of any other, and
// brings one that an earlier version wrote up to Version.
func initialise(tx *bbolt.Tx) error {
	version := uint32(0)
	if tx.Bucket(bucketNode) != nil {
		var err error
		if version, err = schema(tx); err != nil || version == Version {
			return err
		}
	}
	// What has been added since is new buckets, the journal's file, and a
	// record of each layer. An earlier version must not open the database any
	// more: it would remove a volume and leave behind what is in them.
	if version > 0 && version < 3 {
		if err := foldBucket(tx); err != nil {
			return err
		}
	}
	for _, added := range buckets[version+1:] {
		for _, name := range added {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
	}
	if version < 4 {
		if err := migrateLayers(tx); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketNode).Put(keyVersion, binary.BigEndian.AppendUint32(nil, Version))
}

func checkVersion(tx *bbolt.Tx) error {
	_, err := schema(tx)
	return err
}

// schema returns the version of a file that has all that is part of it.
func schema(tx *bbolt.Tx) (uint32, error) {
	node := tx.Bucket(bucketNode)
	if node == nil {
		return 0, fmt.Errorf("%w: no schema version", ErrCorrupt)
	}
	v := node.Get(keyVersion)
	if len(v) != 4 {
		return 0, fmt.Errorf("%w: bad schema version", ErrCorrupt)
	}
	n := binary.BigEndian.Uint32(v)
	switch {
	case n == 0:
		return 0, fmt.Errorf("%w: bad schema version", ErrCorrupt)
	case n > Version:
		return 0, fmt.Errorf("%w: schema %d, this one knows up to %d", ErrVersion, n, Version)
	}
	for _, added := range buckets[:n+1] {
		for _, name := range added {
			if tx.Bucket(name) == nil {
				return 0, fmt.Errorf("%w: no bucket %q", ErrCorrupt, name)
			}
		}
	}
	return n, nil
}

// Close folds what is to be folded and closes the files. Calls after it fail.
func (d *DB) Close() error {
	close(d.stop)
	d.stopped.Wait()
	err := d.Fold()
	if err == nil {
		err = d.bolt.Update(func(tx *bbolt.Tx) error {
			return changeState(tx, func(s *journalState) { s.needed = false })
		})
	}
	return errors.Join(err, d.journal.file.Close(), d.bolt.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
