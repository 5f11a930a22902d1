package lun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// EXTENDED COPY(LID1), SPC-4 6.4: copies from disk to disk on behalf of an
// initiator, of which VMware's VAAI is the most frequent. The disk that gets
// the command is its copy manager; source and destination are disks that the
// nexus may name (see Map.SetPeers), this one among them.
//
// The parameter list:
//
//	 0      LIST IDENTIFIER
//	 1      STR, LIST ID USAGE, PRIORITY
//	 2..3   length of the CSCD descriptors    \
//	 8..11  length of the segment descriptors  > which follow at 16
//	12..15  length of the inline data         /
//
// It is checked as a whole before anything is copied, as far as it says what
// it means. What a segment meets when its turn comes, such as a disk that is
// not there, or less of it, ends the copy with COPY ABORTED, and those before
// it have been copied.

// blockToBlock is a segment descriptor, SPC-4 6.4.6.3:
//
//	 0      02h
//	 1      DC, CAT
//	 2..3   0018h
//	 4..5   source CSCD descriptor
//	 6..7   destination CSCD descriptor
//	10..11  number of blocks
//	12..19  source LBA
//	20..27  destination LBA
//
// DC says in whose blocks the number is, and CAT and PAD what to do with parts
// of blocks that are left over: with blocks of one size everywhere they change
// nothing.
type blockToBlock struct {
	source, destination       int // index of the CSCD descriptor
	blocks                    uint64
	sourceLBA, destinationLBA uint64
}

const (
	blockToBlockType   = 0x02
	blockToBlockLength = 28
	copyHeaderLength   = 16

	// thisDisk is the CSCD descriptor ID of the disk that executes the
	// command, SPC-4 6.4.6.1.
	thisDisk = 0xffff
)

// Conditions of EXTENDED COPY.
var (
	errTooManyCSCDs    = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2606} // TOO MANY TARGET DESCRIPTORS
	errCSCDType        = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2607} // UNSUPPORTED TARGET DESCRIPTOR TYPE CODE
	errTooManySegments = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2608} // TOO MANY SEGMENT DESCRIPTORS
	errSegmentType     = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2609} // UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE
	errInlineData      = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x260b} // INLINE DATA LENGTH EXCEEDED
)

// Additional sense codes of COPY ABORTED.
const (
	ascUnreachable scsi.SCSISubError = 0x0804 // UNREACHABLE COPY TARGET
	ascThirdParty  scsi.SCSISubError = 0x0d01 // THIRD PARTY DEVICE FAILURE
	ascNotThere    scsi.SCSISubError = 0x0d02 // COPY TARGET DEVICE NOT REACHABLE
)

// copyOps returns the rows of the copy commands.
func (d *Disk) copyOps() []operation {
	return []operation{
		{name: "EXTENDED COPY(LID1)", usage: serviceAction(extendedCopyCode, 0x00, "0000000000000000 ffffffff 00 04"), action: true, flags: accessWrite, do: d.extendedCopy},
	}
}

// copyList is what the parameter list of an EXTENDED COPY says.
type copyList struct {
	id       byte
	unnamed  bool     // there is no list identifier
	cscds    [][]byte // descriptors
	segments []blockToBlock
}

// parseCopyList checks a parameter list.
func parseCopyList(p []byte) (*copyList, error) {
	const noIdentifier = 3
	if len(p) < copyHeaderLength {
		return nil, errListLength
	}
	be := binary.BigEndian
	cscds, segments, inline := uint64(be.Uint16(p[2:])), uint64(be.Uint32(p[8:])), uint64(be.Uint32(p[12:]))
	if inline > 0 {
		return nil, errInlineData
	}
	if cscds+segments > maxCopyList || copyHeaderLength+cscds+segments > uint64(len(p)) {
		return nil, errListLength
	}
	l := &copyList{id: p[0]}
	switch p[1] >> 3 & 3 { // LIST ID USAGE
	case 1:
		return nil, invalidParameter(1, 4)
	case noIdentifier:
		if l.id != 0 {
			return nil, invalidParameter(0, 7)
		}
		l.unnamed = true
	}
	at := copyHeaderLength
	for end := at + int(cscds); at < end; at += identificationLength {
		switch {
		case len(l.cscds) == maxCSCDs:
			return nil, errTooManyCSCDs
		case p[at] != identificationType:
			return nil, errCSCDType
		case end-at < identificationLength:
			return nil, invalidParameter(2, 7)
		}
		l.cscds = append(l.cscds, p[at:at+identificationLength])
	}
	for end := at + int(segments); at < end; at += blockToBlockLength {
		s := p[at:end]
		switch {
		case len(l.segments) == maxSegments:
			return nil, errTooManySegments
		case s[0] != blockToBlockType:
			return nil, errSegmentType
		case len(s) < blockToBlockLength:
			return nil, invalidParameter(8, 7)
		case be.Uint16(s[2:]) != blockToBlockLength-4:
			return nil, invalidParameter(at+2, 7)
		}
		l.segments = append(l.segments, blockToBlock{
			source: int(be.Uint16(s[4:])), destination: int(be.Uint16(s[6:])),
			blocks:    uint64(be.Uint16(s[10:])),
			sourceLBA: be.Uint64(s[12:]), destinationLBA: be.Uint64(s[20:]),
		})
	}
	return l, nil
}

// extendedCopy executes EXTENDED COPY(LID1).
func (d *Disk) extendedCopy(ctx context.Context, c *Command) (err error) {
	length := int64(binary.BigEndian.Uint32(c.CDB[10:])) // PARAMETER LIST LENGTH
	if length == 0 {
		return nil
	}
	c.Transfer = length
	l, err := parseCopyList(c.Out[:min(length, int64(len(c.Out)))])
	if err != nil {
		return err
	}
	record := &copyRecord{id: uint32(l.id)}
	if !l.unnamed {
		if err := d.copies.begin(c.Nexus, record); err != nil {
			return err
		}
		err = errNotCopied // in case of a panic
		defer func() { d.copies.end(record, err, nil) }()
	}
	changed := make(map[*Disk]bool)
	for i, s := range l.segments {
		dst, err := d.copySegment(ctx, c.Nexus, l, s, record)
		if err != nil {
			return copyAborted(i, err)
		}
		changed[dst] = true
		record.segments.Add(1)
	}
	for dst := range changed {
		if dst.writeThrough.Load() {
			if err := dst.flush(ctx, 0); err != nil {
				return copyAborted(len(l.segments)-1, err)
			}
		}
	}
	return nil
}

// copySegment copies what one segment descriptor says, and returns where to.
func (d *Disk) copySegment(ctx context.Context, n *Nexus, l *copyList, s blockToBlock, r *copyRecord) (*Disk, error) {
	var disks [2]*Disk
	for i, index := range []int{s.source, s.destination} {
		if index == thisDisk {
			disks[i] = d
			continue
		}
		if index >= len(l.cscds) {
			return nil, fmt.Errorf("no CSCD descriptor %d: %w", index, errUnreachable)
		}
		if disks[i] = n.identify(d, l.cscds[index]); disks[i] == nil {
			return nil, fmt.Errorf("no disk that CSCD descriptor %d names: %w", index, errUnreachable)
		}
	}
	src, dst := disks[0], disks[1]
	if dst != d {
		visit, leave := dst.visit(ctx, n)
		defer leave()
		err := copyBlocks(visit, n, src, dst, s, r)
		if err != nil && visit.Err() != nil && ctx.Err() == nil {
			err = errReserved // the visit was ended
		}
		return dst, err
	}
	return dst, copyBlocks(ctx, n, src, dst, s, r)
}

// copyBlocks copies what a segment descriptor says between disks that are
// found.
func copyBlocks(ctx context.Context, n *Nexus, src, dst *Disk, s blockToBlock, r *copyRecord) error {
	if err := src.mayCopy(n, false); err != nil {
		return err
	}
	if err := dst.mayCopy(n, true); err != nil {
		return err
	}
	if s.blocks == 0 {
		return nil
	}
	from, length, err := src.within(s.sourceLBA, s.blocks)
	if err != nil {
		return err
	}
	off, _, err := dst.within(s.destinationLBA, s.blocks)
	if err != nil {
		return err
	}
	return dst.copyFrom(ctx, off, src, from, length, func(n int64) { r.moved.Add(n) })
}

var errUnreachable = errors.New("unreachable copy source or destination")

// copyAborted is how a copy ends that err stopped in a segment, SPC-4 5.17.8.2. That
// the command was aborted, and that there is no space, the initiator hears as
// from any other command.
func copyAborted(segment int, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, block.ErrNoSpace) {
		return err
	}
	cond := &condition{key: scsi.COPY_ABORTED, code: ascThirdParty, command: uint32(segment), hasCommand: true}
	_, cause := diagnose(err)
	switch {
	case errors.Is(err, errUnreachable):
		cond.code = ascUnreachable
	case cause.code == scsi.ASC_LBA_OUT_OF_RANGE:
		cond.code = ascNotThere
	}
	return errors.Join(cond, err)
}
