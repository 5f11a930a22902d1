package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Magic numbers and codes of the protocol.
const (
	magicInit   = 0x4e42444d41474943 // NBDMAGIC
	magicOption = 0x49484156454f5054 // IHAVEOPT
	magicOptRep = 0x0003e889045565a9
	magicReq    = 0x25609513
	magicReply  = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optGo = 7

	repAck  = 1
	repInfo = 3
	repErr  = 1 << 31

	infoExport    = 0
	infoBlockSize = 3

	canReadOnly    = 1 << 1
	canFlush       = 1 << 2
	canFUA         = 1 << 3
	canWriteZeroes = 1 << 6

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdWriteZeroes = 6

	cmdFUA = 1 << 0

	requestSize = 28
	replySize   = 16

	maxOptReply = 64 << 10 // nothing that a server has to say is longer
	maxPayload  = 32 << 20 // what every server takes, if it says nothing else
)

// export is what a server says of one.
type export struct {
	size     int64
	flags    uint16
	minBlock int64 // offsets and lengths are multiples of it
	maxBlock int64 // of the data of a request
}

// handshake negotiates an export by its name.
func handshake(c net.Conn, name string) (e export, err error) {
	var head [18]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return e, err
	}
	flags := binary.BigEndian.Uint16(head[16:])
	if binary.BigEndian.Uint64(head[:]) != magicInit || binary.BigEndian.Uint64(head[8:]) != magicOption || flags&flagFixedNewstyle == 0 {
		return e, errors.New("what listens there is no NBD server of the newstyle protocol")
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(flags)&(flagFixedNewstyle|flagNoZeroes))
	out = binary.BigEndian.AppendUint64(out, magicOption)
	out = binary.BigEndian.AppendUint32(out, optGo)
	out = binary.BigEndian.AppendUint32(out, uint32(4+len(name)+2+2))
	out = binary.BigEndian.AppendUint32(out, uint32(len(name)))
	out = append(out, name...)
	out = binary.BigEndian.AppendUint16(out, 1)
	out = binary.BigEndian.AppendUint16(out, infoBlockSize)
	if _, err := c.Write(out); err != nil {
		return e, err
	}
	e.size, e.minBlock, e.maxBlock = -1, 1, maxPayload
	for {
		kind, data, err := readOptReply(c)
		switch {
		case err != nil:
			return e, err
		case kind&repErr != 0:
			return e, fmt.Errorf("the server refuses export %q: %s (error %d)", name, data, kind&^repErr)
		case kind == repAck && e.size < 0:
			return e, errors.New("the server does not tell the size")
		case kind == repAck:
			return e, nil
		case kind == repInfo:
			if err := e.info(data); err != nil {
				return e, err
			}
		}
	}
}

// readOptReply reads one answer to the option.
func readOptReply(r io.Reader) (kind uint32, data []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != magicOptRep || binary.BigEndian.Uint32(head[8:]) != optGo || n > maxOptReply {
		return 0, nil, errors.New("the server does not keep to the protocol")
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return binary.BigEndian.Uint32(head[12:]), data, err
}

// info takes over one piece of information; those that are not known do not
// matter.
func (e *export) info(data []byte) error {
	if len(data) < 2 {
		return errors.New("the server does not keep to the protocol")
	}
	switch kind := binary.BigEndian.Uint16(data); {
	case kind == infoExport && len(data) == 12:
		e.size, e.flags = int64(binary.BigEndian.Uint64(data[2:])), binary.BigEndian.Uint16(data[10:])
		if e.size < 0 {
			return errors.New("the server tells an impossible size")
		}
	case kind == infoBlockSize && len(data) == 14:
		e.minBlock, e.maxBlock = int64(binary.BigEndian.Uint32(data[2:])), int64(binary.BigEndian.Uint32(data[10:]))
		if e.minBlock < 1 || e.minBlock > 64<<10 || e.minBlock&(e.minBlock-1) != 0 || e.maxBlock < e.minBlock {
			return errors.New("the server tells impossible block sizes")
		}
		e.maxBlock = min(e.maxBlock, maxPayload) / e.minBlock * e.minBlock
	}
	return nil
}

// putRequest writes the head of a request.
func putRequest(b []byte, flags, cmd uint16, cookie uint64, off int64, n uint32) {
	binary.BigEndian.PutUint32(b, magicReq)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], cmd)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint64(b[16:], uint64(off))
	binary.BigEndian.PutUint32(b[24:], n)
}

// getReply reads the head of a reply.
func getReply(b []byte) (code uint32, cookie uint64, ok bool) {
	return binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b) == magicReply
}

// replyError is what an error of the protocol, which has the numbers of Linux,
// means.
func replyError(code uint32) error {
	if code == 0 {
		return nil
	}
	return fmt.Errorf("the server answers: %w", syscall.Errno(code))
}
