package lun

import (
	"context"
	"encoding/binary"
	"time"

	"skylun/block"
)

// POPULATE TOKEN and WRITE USING TOKEN, SBC-3 5.7 and 5.46: what Windows copies
// files with (Offloaded Data Transfer). One makes a token of ranges of a disk,
// the other writes what a token stands for to ranges of the same or another
// disk. RECEIVE ROD TOKEN INFORMATION returns the token, and tells how much
// was written. IMMED ends either later than it could; what one command may move is
// bounded so that it does not last.
//
// A range descriptor:
//
//	0..7   LBA
//	8..11  number of logical blocks

const rangeLength = 16

// tokenOps returns the rows of the token commands.
func (d *Disk) tokenOps() []operation {
	const mask = "00000000 ffffffff ffffffff 00 04"
	return []operation{
		{name: "POPULATE TOKEN", usage: serviceAction(extendedCopyCode, 0x10, mask), action: true, flags: accessRead, do: d.populateToken},
		{name: "WRITE USING TOKEN", usage: serviceAction(extendedCopyCode, 0x11, mask), action: true, flags: accessWrite, do: d.writeUsingToken},
	}
}

// tokenList returns the parameter list of either, of which the fixed part has
// so many bytes and a length of the range descriptors in the last two; nil when
// the CDB says that there is none.
func tokenList(c *Command, fixed int) (list, ranges []byte, err error) {
	length := int64(binary.BigEndian.Uint32(c.CDB[10:])) // PARAMETER LIST LENGTH
	if length == 0 {
		return nil, nil, nil
	}
	c.Transfer = length
	p := c.Out[:min(length, int64(len(c.Out)))]
	if len(p) < fixed {
		return nil, nil, errListLength
	}
	data := int(binary.BigEndian.Uint16(p))           // of what follows it
	size := int(binary.BigEndian.Uint16(p[fixed-2:])) // BLOCK DEVICE RANGE DESCRIPTOR LENGTH
	if size < rangeLength || size > data-(fixed-2) {
		return nil, nil, invalidParameter(fixed-2, 7)
	}
	if len(p) < fixed+size {
		return nil, nil, errListLength
	}
	return p[:fixed], p[fixed:][:size/rangeLength*rangeLength], nil
}

// ranges decodes range descriptors, the first of which is at byte at of the
// parameter list. They do not overlap.
func (d *Disk) ranges(p []byte, at int) (all []block.Range, total int64, err error) {
	if len(p) > maxTokenRanges*rangeLength {
		return nil, 0, errTooManySegments
	}
	for i := 0; i < len(p); i += rangeLength {
		lba, blocks := binary.BigEndian.Uint64(p[i:]), uint64(binary.BigEndian.Uint32(p[i+8:]))
		off, n, err := d.within(lba, blocks)
		if err != nil {
			return nil, 0, err
		}
		r := block.Range{Off: off, End: off + n}
		if overlaps(all, r) {
			return nil, 0, invalidParameter(at+i, 7)
		}
		if total += n; total > maxTokenBlocks*logicalBlock {
			return nil, 0, invalidParameter(at+i+8, 7)
		}
		all = append(all, r)
	}
	return all, total, nil
}

func overlaps(all []block.Range, r block.Range) bool {
	for _, of := range all {
		if !of.Intersect(r).Empty() {
			return true
		}
	}
	return false
}

// populateToken executes POPULATE TOKEN.
func (d *Disk) populateToken(_ context.Context, c *Command) (err error) {
	const (
		fixed = 16
		rtv   = 0x02
	)
	list, descriptors, err := tokenList(c, fixed)
	if list == nil || err != nil {
		return err
	}
	idle := binary.BigEndian.Uint32(list[4:]) // INACTIVITY TIMEOUT
	if idle == 0 {
		idle = defaultTokenTime
	}
	if idle > maxTokenTime {
		return invalidParameter(4, 7)
	}
	if rod := binary.BigEndian.Uint32(list[8:]); list[2]&rtv != 0 && rod != rodPointInTime && rod != rodVulnerable {
		return invalidParameter(8, 7) // ROD TYPE
	}
	ranges, total, err := d.ranges(descriptors, fixed)
	if err != nil {
		return err
	}
	record := &copyRecord{id: binary.BigEndian.Uint32(c.CDB[6:]), wide: true, action: 0x10}
	if err := d.copies.begin(c.Nexus, record); err != nil {
		return err
	}
	var token []byte
	err = errNotCopied
	defer func() { d.copies.end(record, err, token) }()
	token, err = d.makeToken(c.Nexus, ranges, time.Duration(idle)*time.Second)
	if err == nil {
		record.moved.Store(total)
		record.segments.Store(int32(len(ranges)))
	}
	return err
}

// tokenPiece is how much is written between two looks at whether the token is
// still valid.
const tokenPiece = 16 << 20

// writeUsingToken executes WRITE USING TOKEN. The parameter list:
//
//	  0..1    length
//	  2       IMMED, DEL_TKN
//	  8..15   OFFSET INTO ROD, in logical blocks
//	 16..527  ROD TOKEN
//	534..535  length of the range descriptors
func (d *Disk) writeUsingToken(ctx context.Context, c *Command) (err error) {
	const (
		fixed  = 536
		delTkn = 0x02
	)
	list, descriptors, err := tokenList(c, fixed)
	if list == nil || err != nil {
		return err
	}
	if err := d.mayCopy(c.Nexus, true); err != nil {
		return err
	}
	ranges, total, err := d.ranges(descriptors, fixed)
	if err != nil {
		return err
	}
	record := &copyRecord{id: binary.BigEndian.Uint32(c.CDB[6:]), wide: true, action: 0x11}
	if err := d.copies.begin(c.Nexus, record); err != nil {
		return err
	}
	err = errNotCopied // in case of a panic
	defer func() { d.copies.end(record, err, nil) }()

	p := list[16:][:tokenLength]
	if binary.BigEndian.Uint32(p) == rodZero {
		return d.writeZeros(ctx, ranges, record)
	}
	if kind := binary.BigEndian.Uint32(p); kind != rodVulnerable {
		return errTokenType
	}
	src := c.Nexus.identify(d, p[tokenCreator:][:identificationLength])
	if src == nil {
		return errTokenUnknown
	}
	t, err := src.useToken(p)
	if err != nil {
		return err
	}
	defer src.doneToken(t, list[2]&delTkn != 0)
	offset := binary.BigEndian.Uint64(list[8:])
	if offset > uint64(t.size)/logicalBlock || total > t.size-int64(offset)*logicalBlock {
		return invalidParameter(8, 7)
	}
	if err := src.mayCopy(c.Nexus, false); err != nil {
		return copyAborted(0, err)
	}
	if src.dev == d.dev {
		for _, r := range ranges {
			if overlaps(t.ranges, r) {
				return invalidParameter(fixed, 7) // it would revoke its own token
			}
		}
	}
	return d.writeToken(ctx, ranges, src, t, int64(offset)*logicalBlock, record)
}

// writeZeros writes what the zero token stands for.
func (d *Disk) writeZeros(ctx context.Context, ranges []block.Range, r *copyRecord) error {
	for _, dst := range ranges {
		d.changing(dst)
		if err := d.discard(ctx, dst.Off, dst.Len()); err != nil {
			return err
		}
		r.moved.Add(dst.Len())
		r.segments.Add(1)
	}
	return nil
}

// writeToken writes the data of a token of src, from skip on.
func (d *Disk) writeToken(ctx context.Context, ranges []block.Range, src *Disk, t *token, skip int64, r *copyRecord) error {
	from := t.ranges // what is left of the source
	for ; len(from) > 0 && skip >= from[0].Len(); from = from[1:] {
		skip -= from[0].Len()
	}
	for _, dst := range ranges {
		for dst.Off < dst.End {
			at := from[0].Off + skip
			n := min(dst.Len(), from[0].End-at, tokenPiece)
			if n > 0 {
				if err := d.copyFrom(ctx, dst.Off, src, at, n, func(int64) {}); err != nil {
					return err
				}
				// A token that is valid now was valid when the piece was
				// read: the source was what the token stands for.
				if err := src.tokenValid(t); err != nil {
					return err
				}
				r.moved.Add(n)
			}
			dst.Off += n
			if skip += n; skip == from[0].Len() {
				from, skip = from[1:], 0
			}
		}
		r.segments.Add(1)
	}
	if d.writeThrough.Load() {
		return d.flush(ctx, 0)
	}
	return nil
}

// rodInformation executes RECEIVE ROD TOKEN INFORMATION, SPC-4 6.29 and SBC-3
// 5.22.
func (d *Disk) rodInformation(_ context.Context, c *Command) error {
	r, ended, sense, token, err := d.copies.get(c, 2, binary.BigEndian.Uint32(c.CDB[2:]), true)
	if err != nil {
		return err
	}
	const (
		completed  = 0x01
		failed     = 0x02
		inProgress = 0x11 // in the foreground
		blocks     = 0xf1 // TRANSFER COUNT UNITS: logical blocks
	)
	p := make([]byte, 32, 32+MaxSense+4+2+tokenLength)
	p[4] = r.action
	switch {
	case !ended:
		p[5] = inProgress
		binary.BigEndian.PutUint32(p[8:], 100) // ESTIMATED STATUS UPDATE DELAY, milliseconds
	case len(sense) > 0:
		p[5] = failed
		p[12] = byte(StatusCheckCondition)
	default:
		p[5] = completed
	}
	p[13], p[14] = byte(len(sense)), byte(len(sense))
	p[15] = blocks
	binary.BigEndian.PutUint64(p[16:], uint64(r.moved.Load())/logicalBlock)
	binary.BigEndian.PutUint16(p[24:], uint16(r.segments.Load()))
	p = append(p, sense...)
	if len(token) > 0 {
		p = binary.BigEndian.AppendUint32(p, uint32(2+len(token))) // ROD TOKEN DESCRIPTORS LENGTH
		p = append(p, 0, 0)
		p = append(p, token...)
	} else {
		p = append(p, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, copyAllocation(c))
	return nil
}
