package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// nbdDisk is a client of an NBD server, as little of one as it takes to read:
// fixed newstyle negotiation, one connection, any number of reads in flight.
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
type nbdDisk struct {
	conn net.Conn
	size int64
	done chan struct{} // closed when nothing is received any more

	mu      sync.Mutex
	cookie  uint64             // guarded by mu
	waiting map[uint64]nbdRead // guarded by mu
	failed  error              // guarded by mu
}

type nbdRead struct {
	p      []byte
	answer chan error
}

const (
	nbdMagic        = 0x4e42444d41474943 // NBDMAGIC
	nbdOptionMagic  = 0x49484156454f5054 // IHAVEOPT
	nbdRequestMagic = 0x25609513
	nbdReplyMagic   = 0x67446698

	nbdFixedNewstyle = 1 << 0
	nbdNoZeroes      = 1 << 1
	nbdExportName    = 1
)

func dialNBD(addr string) (*nbdDisk, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	d := &nbdDisk{conn: conn, done: make(chan struct{}), waiting: map[uint64]nbdRead{}}
	r := bufio.NewReaderSize(conn, 1<<20)
	if err := d.negotiate(r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("NBD server: %w", err)
	}
	go d.receive(r)
	return d, nil
}

func (d *nbdDisk) negotiate(r io.Reader) error {
	be := binary.BigEndian
	var hello [18]byte
	if _, err := io.ReadFull(r, hello[:]); err != nil {
		return err
	}
	if be.Uint64(hello[:]) != nbdMagic || be.Uint64(hello[8:]) != nbdOptionMagic || be.Uint16(hello[16:])&nbdFixedNewstyle == 0 {
		return errors.New("speaks something else")
	}
	flags := be.Uint16(hello[16:]) & (nbdFixedNewstyle | nbdNoZeroes)
	q := be.AppendUint32(nil, uint32(flags))
	q = be.AppendUint64(q, nbdOptionMagic)
	q = be.AppendUint32(q, nbdExportName)
	q = be.AppendUint32(q, 0)
	if _, err := d.conn.Write(q); err != nil {
		return err
	}
	info := make([]byte, 10)
	if flags&nbdNoZeroes == 0 {
		info = make([]byte, 10+124)
	}
	if _, err := io.ReadFull(r, info); err != nil {
		return err
	}
	d.size = int64(be.Uint64(info))
	return nil
}

// ReadAt implements block.Reader.
func (d *nbdDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	be := binary.BigEndian
	answer := make(chan error, 1)
	d.mu.Lock()
	if d.failed != nil {
		d.mu.Unlock()
		return d.failed
	}
	d.cookie++
	q := be.AppendUint32(nil, nbdRequestMagic)
	q = be.AppendUint32(q, 0) // no flags, NBD_CMD_READ
	q = be.AppendUint64(q, d.cookie)
	q = be.AppendUint64(q, uint64(off))
	q = be.AppendUint32(q, uint32(len(p)))
	d.waiting[d.cookie] = nbdRead{p, answer}
	_, err := d.conn.Write(q)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return <-answer // a read that is given up would leave its answer in the way
}

// Size implements block.Reader.
func (d *nbdDisk) Size() int64 { return d.size }

func (d *nbdDisk) receive(r io.Reader) {
	defer close(d.done)
	be := binary.BigEndian
	var header [16]byte
	for {
		_, err := io.ReadFull(r, header[:])
		if err == nil && be.Uint32(header[:]) != nbdReplyMagic {
			err = errors.New("NBD server: not a simple reply")
		}
		var w nbdRead
		if err == nil {
			d.mu.Lock()
			cookie := be.Uint64(header[8:])
			w = d.waiting[cookie]
			delete(d.waiting, cookie)
			d.mu.Unlock()
			if w.answer == nil {
				err = errors.New("NBD server: reply to no request")
			}
		}
		if err == nil {
			if code := be.Uint32(header[4:]); code != 0 {
				w.answer <- fmt.Errorf("NBD server: error %d", code)
				continue
			}
			if _, err = io.ReadFull(r, w.p); err == nil {
				w.answer <- nil
				continue
			}
			w.answer <- err
		}
		d.mu.Lock()
		d.failed = err
		for _, w := range d.waiting {
			w.answer <- err
		}
		d.mu.Unlock()
		return
	}
}

// Close ends the connection.
func (d *nbdDisk) Close() {
	d.conn.Close()
	<-d.done
}
