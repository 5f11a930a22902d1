package lun

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// ROD tokens, SPC-4 5.17.6: a token stands for what some ranges of a disk held
// at the moment when it was made, and whoever has it can have that written
// somewhere else. Nothing is copied until then, and nothing kept: the tokens
// are those of point in time copies that are change vulnerable. The first
// command that could change one of the ranges revokes the token before it
// does, so a token gives the data of that moment or none. A write that was
// under way when the token was made counts as before it or after it, each
// logical block for itself: its initiator has asked for both at once.
//
// A token is a reason to look at the gate, for as long as it is valid, so only
// a disk with tokens asks of its writes what they change.
//
// Anybody who knows a token and sees the disk it was made of may use it, as
// the standard has it: tokens travel from one server to another. They cannot be
// guessed, expire when they are not used, and are gone after a restart.

// Kinds of ROD tokens, SPC-4 table 106.
const (
	rodPointInTime = 0x00800000 // any of the point in time copies
	rodVulnerable  = 0x00800001 // point in time copy, change vulnerable
	rodZero        = 0xffff0001 // block device zero ROD token, which is known to all
)

const (
	tokenLength = 512

	// Where things are in a token, SPC-4 5.17.6.2.
	tokenCreator = 16 // LOGICAL UNIT DESCRIPTOR of the disk
	tokenBytes   = 56 // lower half of NUMBER OF BYTES REPRESENTED
	tokenDevice  = 96 // as in READ CAPACITY(16), from the block length on
	tokenTarget  = 128

	maxTokens          = 256 // of one disk
	maxTokenRanges     = 64
	maxTokenBlocks     = 256 << 20 / logicalBlock // that one command makes or uses
	optimalTokenBlocks = 64 << 20 / logicalBlock
	defaultTokenTime   = 60  // seconds without use
	maxTokenTime       = 300 // the same
)

// Conditions of tokens.
var (
	errTokenType     = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2301} // UNSUPPORTED TOKEN TYPE
	errTokenUnknown  = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2304} // TOKEN UNKNOWN
	errTokenRevoked  = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2306} // TOKEN REVOKED
	errTokenDeleted  = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x2309} // TOKEN DELETED
	errTooManyTokens = &condition{key: scsi.ILLEGAL_REQUEST, code: 0x550d} // INSUFFICIENT RESOURCES TO CREATE ROD TOKEN
)

// tokens are those made of a disk.
type tokens struct {
	mu  sync.Mutex
	all map[[tokenLength]byte]*token // guarded by mu
}

// token is one of them.
type token struct {
	ranges []block.Range // in bytes, in the order of the data
	size   int64         // of all of them

	// Guarded by tokens.mu.

	ended  *condition // why it gives nothing any more, nil: it does
	users  int        // it does not expire while there are any
	expiry *time.Timer
	idle   time.Duration // how long it lives without use
}

// makeToken returns a token of ranges of d.
func (d *Disk) makeToken(n *Nexus, ranges []block.Range, idle time.Duration) ([]byte, error) {
	t := &token{ranges: ranges, idle: idle}
	for _, r := range ranges {
		t.size += r.Len()
	}
	var key [tokenLength]byte
	rand.Read(key[:])
	p := key[:tokenTarget]
	binary.BigEndian.PutUint32(p, rodVulnerable)
	copy(p[4:], []byte{0, 0, 0x01, 0xf8}) // ROD TOKEN LENGTH
	// 8..15: COPY MANAGER ROD TOKEN IDENTIFIER, random
	clear(p[tokenCreator:])
	d.appendIdentification(p[tokenCreator:tokenCreator])
	binary.BigEndian.PutUint64(p[tokenBytes:], uint64(t.size))
	binary.BigEndian.PutUint32(p[tokenDevice:], logicalBlock)
	p[tokenDevice+5] = physicalExponent
	p[tokenDevice+6] = 0x80 | 0x40 // LBPME, LBPRZ
	if n != nil {                  // TARGET DEVICE DESCRIPTOR; random bytes follow
		target := designator(nil, scsi.INQ_CODE_UTF8, scsi.ASS_TGT_DEV, scsi.DESG_SCSI, nameString(n.TargetName))
		copy(key[tokenTarget:tokenLength-128], target)
	}

	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	if len(d.tokens.all) >= maxTokens {
		for key, t := range d.tokens.all {
			if t.ended != nil {
				d.dropToken(key, t)
				break
			}
		}
		if len(d.tokens.all) >= maxTokens {
			return nil, errTooManyTokens
		}
	}
	if d.tokens.all == nil {
		d.tokens.all = make(map[[tokenLength]byte]*token)
	}
	d.tokens.all[key] = t
	d.gate.Add(1)
	t.expiry = time.AfterFunc(idle, func() {
		d.tokens.mu.Lock()
		defer d.tokens.mu.Unlock()
		switch {
		case d.tokens.all[key] != t:
		case t.users > 0:
			t.expiry.Reset(idle)
		default:
			d.dropToken(key, t)
		}
	})
	return key[:], nil
}

// endToken makes a token give nothing any more. It is remembered until it
// would have expired, to tell why. tokens.mu is held.
func (d *Disk) endToken(t *token, why *condition) {
	if t.ended == nil {
		t.ended = why
		d.gate.Add(-1)
	}
}

// dropToken forgets a token. tokens.mu is held.
func (d *Disk) dropToken(key [tokenLength]byte, t *token) {
	d.endToken(t, errTokenUnknown)
	t.expiry.Stop()
	delete(d.tokens.all, key)
}

// useToken returns the token of these bytes, for use until doneToken.
func (d *Disk) useToken(p []byte) (*token, error) {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	t := d.tokens.all[[tokenLength]byte(p)]
	if t == nil {
		return nil, errTokenUnknown
	}
	if t.ended != nil {
		return nil, t.ended
	}
	t.users++
	return t, nil
}

// doneToken ends a use of a token, whose time begins anew. When its holder has
// no more use for it, it is over.
func (d *Disk) doneToken(t *token, over bool) {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	t.users--
	t.expiry.Reset(t.idle)
	if over {
		d.endToken(t, errTokenDeleted)
	}
}

// tokenValid tells whether a token still gives what it stands for: an error
// says why it does not.
func (d *Disk) tokenValid(t *token) error {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	if t.ended != nil {
		return t.ended
	}
	return nil
}

// changing revokes the tokens that stand for any byte of r. It is called
// before r changes, by everything that changes a disk.
func (d *Disk) changing(r block.Range) {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	for _, t := range d.tokens.all {
		if slices.ContainsFunc(t.ranges, func(of block.Range) bool { return !of.Intersect(r).Empty() }) {
			d.endToken(t, errTokenRevoked)
		}
	}
}

// noticeChange is called with commands that are about to change the medium,
// while there is a reason to look at the gate.
func (d *Disk) noticeChange(c *Command, op *operation) {
	d.tokens.mu.Lock()
	any := len(d.tokens.all) > 0
	d.tokens.mu.Unlock()
	if any && len(c.CDB) >= len(op.usage) {
		d.changing(d.changes(c, op))
	}
}

// changes returns what a command may change: the extent in its CDB, if there
// is one, else everything. UNMAP says it in its parameter list, and tells
// changing itself.
func (d *Disk) changes(c *Command, op *operation) block.Range {
	var lba, blocks uint64
	switch op.usage[0] {
	case 0x0a, 0x2a, 0xaa, 0x8a, // WRITE
		0x2e, 0xae, 0x8e, // WRITE AND VERIFY
		0x41, 0x93, // WRITE SAME
		0x8b: // ORWRITE
		var n uint32
		lba, n = c.extent()
		blocks = uint64(n)
	case 0x89: // COMPARE AND WRITE
		lba, blocks = binary.BigEndian.Uint64(c.CDB[2:]), uint64(c.CDB[13])
	case 0x42: // UNMAP
		return block.Range{}
	default:
		return block.Range{Off: 0, End: d.dev.Size()}
	}
	off, n, err := d.within(lba, blocks)
	if err != nil {
		return block.Range{} // the command is refused
	}
	return block.Range{Off: off, End: off + n}
}
