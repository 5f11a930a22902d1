package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

// logPage is a log page, SPC-4 7.3.
type logPage struct {
	code byte

	// parameters returns the log parameters, ascending by code.
	parameters func(context.Context) ([]logParameter, error)
}

// logParameter is a log parameter in binary list format. There are no counters
// and so neither thresholds nor anything to reset.
type logParameter struct {
	code  uint16
	value []byte
}

// logSenseOp makes LOG SENSE of the pages in s.logs. It may have to wait for
// what they tell.
func (s *server) logSenseOp() operation {
	return operation{name: "LOG SENSE", usage: cdb(api.LOG_SENSE, "01 ff ff 00 ffff ffff 04"), flags: accessAll, do: s.logSense}
}

// logSense executes LOG SENSE, SPC-4 6.7. The PC field makes no difference to
// parameters of this format (7.3.2.1).
func (s *server) logSense(ctx context.Context, c *Command) error {
	const (
		sp  = 0x01
		ds  = 0x80 // the page is not saved
		spf = 0x40
	)
	code, sub := c.CDB[2]&0x3f, c.CDB[3]
	pointer := binary.BigEndian.Uint16(c.CDB[5:])
	allocation := uint64(binary.BigEndian.Uint16(c.CDB[7:]))
	if c.CDB[1]&sp != 0 {
		return invalidField(1, 0)
	}
	p := make([]byte, 4, 64)
	switch {
	case code == 0 && (sub == 0 || sub == allSubpages):
		if pointer != 0 {
			return invalidField(5, 7)
		}
		p = append(p, s.supportedLogs(sub == allSubpages)...)
	case s.findLog(code) == nil:
		return invalidField(2, 5)
	case sub != 0:
		return invalidField(3, 7)
	default:
		parameters, err := s.findLog(code).parameters(ctx)
		if err != nil {
			return err
		}
		if n := len(parameters); n == 0 || pointer > parameters[n-1].code {
			return invalidField(5, 7)
		}
		for _, l := range parameters {
			if l.code >= pointer {
				p = append(p, byte(l.code>>8), byte(l.code), 0x03 /* binary list */, byte(len(l.value)))
				p = append(p, l.value...)
			}
		}
		code |= ds
	}
	p[0], p[1] = code, sub
	if sub != 0 {
		p[0] |= spf
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-4))
	c.reply(p, allocation)
	return nil
}

// supportedLogs returns the codes of all pages, SPC-4 7.3.18, or of all
// subpages, 7.3.19.
func (s *server) supportedLogs(subpages bool) []byte {
	p := []byte{0}
	if subpages {
		p = append(p, 0, 0, allSubpages)
	}
	for _, l := range s.logs {
		p = append(p, l.code)
		if subpages {
			p = append(p, 0)
		}
	}
	return p
}

func (s *server) findLog(code byte) *logPage {
	for i := range s.logs {
		if s.logs[i].code == code {
			return &s.logs[i]
		}
	}
	return nil
}
