package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skylun/target/pdu"
)

// Login, RFC 7143 6.3 and 11.12.
//
//	                     T, NSG=1                T, NSG=3
//	  +--> security (0) ----------> operational (1) -----+
//	  |         |                        ^               v
//	first       +-------- T, NSG=3 ------|---------> full feature
//	request -----------------------------+
//
// A login begins in either stage. In each stage there may be any number of
// requests and answers; requests and answers that are too long for one PDU
// are continued with the C bit. A connection in login holds what is below and
// an input buffer for one PDU, no more. The buffer is small until a header
// announces more.

const (
	loginData  = 8192     // of a login PDU: MaxRecvDataSegmentLength before it is negotiated
	loginText  = 16 << 10 // of one request with all its continuations
	loginReply = 24 << 10 // of what answers it: an unknown key costs more than it is long
	loginPDUs  = 64       // PDUs of one login

	loginBuffer = pdu.HeaderSize + pdu.MaxAHS + 256 // at first
)

// login is the state of a login.
type login struct {
	negotiation
	auth auth
	srv  *Server
	conn *conn

	begun      bool // the first request has been seen
	checked    bool // the names have been
	checkedWho who  // and were these
	declared   bool // our own keys have been sent
	stage      pdu.Stage
	itt        uint32
	isid       [6]byte
	tsih       uint16 // as the initiator gave it
	cid        uint16
	tgt        *target // nil for discovery

	request []byte // text of a request that is being continued
	reply   []byte // text that has not been sent
}

// loginError is why a login is refused.
type loginError struct {
	status pdu.LoginStatus
	reason string
	moved  string // TargetAddress, when that is why
}

func (e *loginError) Error() string {
	return fmt.Sprintf("login refused with status 0x%04x: %s", uint16(e.status), e.reason)
}

func refuse(status pdu.LoginStatus, format string, args ...any) error {
	return &loginError{status: status, reason: fmt.Sprintf(format, args...)}
}

// login takes the connection to the full feature phase.
func (c *conn) login(ctx context.Context) error {
	c.in.buf = make([]byte, loginBuffer)
	l := &login{srv: c.srv, conn: c, negotiation: negotiation{params: defaultParams}}
	err := c.negotiate(ctx, l)
	if err == nil {
		c.endLogin(l)
		return nil
	}
	if moved := (*loginError)(nil); errors.As(err, &moved) && moved.moved != "" {
		c.log.Info("login redirected", "initiator", l.initiator, "target", l.target, "to", moved.moved)
	} else if l.begun {
		c.log.Warn("login failed", "initiator", l.initiator, "target", l.target, "err", err)
	} else {
		c.log.Debug("connection without a login", "err", err)
	}
	return err
}

// negotiate answers login requests until the last one.
func (c *conn) negotiate(ctx context.Context, l *login) error {
	for range loginPDUs {
		h, err := c.nextPDU(loginData)
		if err != nil {
			return err
		}
		if all := c.in.data + c.in.pad; all > len(c.in.buf) {
			buf := make([]byte, all)
			c.in.w = copy(buf, c.in.buf[c.in.r:c.in.w])
			c.in.buf, c.in.r = buf, 0
		}
		data, err := c.payload()
		if err != nil {
			return err
		}
		if !l.begun {
			c.statSN = h.ExpStatSN()
		}
		var flags byte
		err = c.guard(func() error { // so that a panic has an answer
			flags, err = l.next(h, data)
			return err
		})
		c.judge(l, h)
		final := err == nil && flags&pdu.FlagFinal != 0 && h.NSG() == pdu.FullFeature
		if final {
			err = c.begin(ctx, l)
		}
		if !l.begun {
			return err
		}
		if err := errors.Join(c.loginResponse(l, h, flags, err), err); err != nil {
			return err
		}
		if final {
			return nil
		}
	}
	return fmt.Errorf("%w: login of more than %d PDUs", errProtocol, loginPDUs)
}

// loginResponse sends the answer to h: the pending text or as much of it as
// fits, or the status of why.
func (c *conn) loginResponse(l *login, h *pdu.Header, flags byte, why error) error {
	status := pdu.LoginSuccess
	var text []byte
	if why != nil {
		status, flags = pdu.LoginTargetError, 0
		if le := (*loginError)(nil); errors.As(why, &le) {
			status = le.status
			if le.moved != "" {
				text = pdu.AppendPair(nil, "TargetAddress", le.moved)
			}
		}
	} else {
		text = l.reply[:min(len(l.reply), loginData)]
		l.reply = l.reply[len(text):]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.respond(pdu.LoginResp, h.ITT(), true)
	csg, nsg := h.CSG(), pdu.Stage(0)
	if flags&pdu.FlagFinal != 0 {
		nsg = h.NSG()
	}
	r.SetStages(flags, csg, nsg)
	r.SetISID(h.ISID())
	r.SetTSIH(h.TSIH())
	if c.sess != nil {
		r.SetTSIH(c.sess.tsih)
	}
	r.SetLoginStatus(status)
	r.SetDataLen(len(text))
	c.next.copy(text)
	c.flush()
	return c.err
}

// endLogin makes the connection ready for the full feature phase.
func (c *conn) endLogin(l *login) {
	rest := c.in.buf[c.in.r:c.in.w]
	buf := make([]byte, inputSize)
	c.in = input{buf: buf, w: copy(buf, rest), headerDigest: c.params.headerDigest, dataDigest: c.params.dataDigest}
	c.spare = c.newTask()
	c.mu.Lock()
	for _, b := range []*batch{c.next, c.spareBatch} {
		b.headerDigest, b.dataDigest = c.params.headerDigest, c.params.dataDigest
	}
	c.ready = true
	if nc := c.sock.(*netSocket); c.err == nil && !c.draining {
		nc.SetDeadline(time.Time{})
		c.sock = fastSocket(nc, &c.srv.polling)
	}
	c.mu.Unlock()
	if l.discovery {
		c.log.Debug("discovery session begins")
	} else {
		attrs := []any{"alias", l.alias}
		if l.auth.user != "" {
			attrs = append(attrs, "user", l.auth.user)
		}
		c.log.Info("session begins", attrs...)
	}
}
