package lun

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// errFailedSelfTest is LOGICAL UNIT FAILED SELF-TEST.
var errFailedSelfTest = &condition{key: scsi.HARDWARE_ERROR, code: 0x3e03}

func (d *Disk) diagnosticOps() []operation {
	return []operation{
		{name: "SEND DIAGNOSTIC", usage: cdb(api.SEND_DIAGNOSTIC, "f7 00 ffff 04"), flags: accessWrite, do: d.sendDiagnostic},
		{name: "RECEIVE DIAGNOSTIC RESULTS", usage: cdb(api.RECEIVE_DIAGNOSTIC, "01 ff ffff 04"), flags: inline | accessRead, do: d.receiveDiagnostic},
	}
}

// Values of the SELF-TEST CODE field, SPC-4 6.42.
const (
	defaultSelfTest    = 0 // with the SELFTEST bit
	backgroundShort    = 1
	backgroundExtended = 2
	abortBackground    = 4
	foregroundShort    = 5
	foregroundExtended = 6
)

// sendDiagnostic executes SEND DIAGNOSTIC, SPC-4 6.42. A background test is
// over before the command is: it takes a few reads.
func (d *Disk) sendDiagnostic(ctx context.Context, c *Command) error {
	const (
		pf       = 0x10
		selfTest = 0x04
	)
	flags, code := c.CDB[1], c.CDB[1]>>5
	length := int(binary.BigEndian.Uint16(c.CDB[3:]))
	switch {
	case flags&selfTest != 0 && code != 0, code > foregroundExtended, code == 3:
		return invalidField(1, 7)
	case (flags&selfTest != 0 || code != 0) && length != 0:
		return invalidField(3, 7)
	case length != 0 && flags&pf == 0:
		return invalidField(1, 4)
	case length != 0:
		return d.diagnosticPage(c, length)
	case flags&selfTest == 0 && code == 0, code == abortBackground:
		return nil // nothing asked for, nothing to abort
	}
	err := d.selfTest(ctx, code == backgroundExtended || code == foregroundExtended)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if code != defaultSelfTest {
		d.selfTests.add(code, err, time.Since(d.started))
	}
	switch {
	case err == nil, ctx.Err() != nil, code == backgroundShort, code == backgroundExtended:
		return ctx.Err()
	default:
		return fmt.Errorf("self-test: %w: %w", errFailedSelfTest, err)
	}
}

// diagnosticPage takes the one diagnostic page that can be sent, Supported
// Diagnostic Pages, SPC-4 7.2.3: it asks for what receiveDiagnostic returns
// anyway.
func (d *Disk) diagnosticPage(c *Command, length int) error {
	c.Transfer = int64(length)
	list := c.Out[:min(length, len(c.Out))]
	switch {
	case len(list) < 4:
		return errListLength
	case list[0] != 0:
		return invalidParameter(0, 7)
	case len(list) != 4 || binary.BigEndian.Uint16(list[2:]) != 0:
		return invalidParameter(2, 7)
	}
	return nil
}

// receiveDiagnostic executes RECEIVE DIAGNOSTIC RESULTS, SPC-4 6.29.
func (d *Disk) receiveDiagnostic(_ context.Context, c *Command) error {
	if c.CDB[2] != 0 { // PAGE CODE
		return invalidField(2, 7)
	}
	pages := []byte{0x00 /* this one */, 0, 0, 1, 0x00}
	c.reply(pages, uint64(binary.BigEndian.Uint16(c.CDB[3:])))
	return nil
}

// selfTest reads the first and the last logical block; an extended test also
// some between them, and flushes.
func (d *Disk) selfTest(ctx context.Context, extended bool) error {
	last, err := d.lastLBA()
	if err != nil {
		return err
	}
	steps := uint64(1)
	if extended {
		steps = 16
	}
	p := make([]byte, logicalBlock)
	for i := range steps + 1 {
		lba := last / steps * i
		if i == steps {
			lba = last
		}
		if err := d.dev.ReadAt(ctx, p, int64(lba)*logicalBlock); err != nil {
			return readError(int64(lba)*logicalBlock, err)
		}
	}
	if extended {
		return d.dev.Flush(ctx)
	}
	return nil
}

// selfTests are the results of the latest self-tests.
type selfTests struct {
	mu      sync.Mutex
	results [][16]byte // guarded by mu: as in the log page, latest first
}

// maxSelfTests is how many results the Self-Test Results page has, SPC-4
// 7.3.17.
const maxSelfTests = 20

// add notes that a test ended with err, so long after the start.
func (s *selfTests) add(code byte, err error, age time.Duration) {
	const (
		aborted = 2
		failed  = 4 // in a segment that is not told
	)
	var r [16]byte
	r[0] = code << 5
	binary.BigEndian.PutUint16(r[2:], uint16(min(age.Hours(), 0xffff)))
	binary.BigEndian.PutUint64(r[4:], 1<<64-1) // no address of failure
	if status, cond := diagnose(err); err != nil && status == StatusTaskAborted {
		r[0] |= aborted
	} else if err != nil {
		r[0] |= failed
		if cond.hasInfo {
			binary.BigEndian.PutUint64(r[4:], cond.info)
		}
		r[12], r[13], r[14] = cond.key, byte(cond.code>>8), byte(cond.code)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append([][16]byte{r}, s.results[:min(len(s.results), maxSelfTests-1)]...)
}

// latest returns the results, of which those that are not there are zero.
func (s *selfTests) latest() (results [maxSelfTests][16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(results[:], s.results)
	return results
}
