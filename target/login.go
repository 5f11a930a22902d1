package target

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
	loginReply = 32 << 10 // of what answers it: an unknown key costs more than it is long
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

// next takes one login request and returns the flags of the answer; its text is
// in l.reply.
func (l *login) next(h *pdu.Header, data []byte) (flags byte, err error) {
	if h.Opcode() != pdu.LoginReq {
		if !l.begun {
			return 0, fmt.Errorf("%w: %v before login", errProtocol, h.Opcode())
		}
		return 0, refuse(pdu.LoginInvalidRequest, "%v during login", h.Opcode())
	}
	if !l.begun {
		l.begun = true
		l.stage, l.itt, l.isid, l.tsih, l.cid = h.CSG(), h.ITT(), h.ISID(), h.TSIH(), h.CID()
		if h.VersionMin() > 0 { // 11.12.4: only version 0 exists
			return 0, refuse(pdu.LoginBadVersion, "initiator speaks no version below 0x%02x", h.VersionMin())
		}
	}
	transit, more := h.Final(), h.Flags()&pdu.FlagContinue != 0
	switch {
	case !h.Immediate():
		return 0, refuse(pdu.LoginInitiatorError, "login request without the immediate bit")
	case h.AHSLen() > 0:
		return 0, refuse(pdu.LoginInitiatorError, "login request with an additional header segment")
	case h.ITT() != l.itt || h.ISID() != l.isid || h.TSIH() != l.tsih || h.CID() != l.cid:
		return 0, refuse(pdu.LoginInitiatorError, "task tag, ISID, TSIH or CID changed during login")
	case h.CSG() != l.stage || h.CSG() > pdu.Operational:
		return 0, refuse(pdu.LoginInitiatorError, "request is in stage %d, login is in stage %d", h.CSG(), l.stage)
	case transit && (more || h.NSG() <= h.CSG() || h.NSG() == 2):
		return 0, refuse(pdu.LoginInitiatorError, "no transit from stage %d to %d, continuation %t", h.CSG(), h.NSG(), more)
	case len(l.request)+len(data) > loginText:
		return 0, refuse(pdu.LoginOutOfResources, "more than %d bytes of text", loginText)
	case len(l.reply) > 0 && (more || len(data) > 0 || transit): // 6.2: only an empty request may follow our C bit
		return 0, refuse(pdu.LoginInitiatorError, "request is not empty while the answer is being continued")
	}
	l.request = append(l.request, data...)
	if more {
		return 0, nil
	}
	if err := l.keys(transit); err != nil {
		return 0, err
	}
	if len(l.reply) > loginReply {
		return 0, refuse(pdu.LoginOutOfResources, "more than %d bytes of answers", loginReply)
	}
	if len(l.reply) > loginData {
		return pdu.FlagContinue, nil
	}
	if !transit || !l.auth.authenticated() {
		return 0, nil
	}
	l.stage = h.NSG()
	return pdu.FlagFinal, nil
}

// keys applies the text of a complete request, which wants to go on to the next
// stage or not.
func (l *login) keys(transit bool) error {
	text := pdu.Text(l.request)
	l.request = nil
	var firstBursts []string // must not exceed MaxBurstLength, which may come later, 13.14
	for {
		key, value, err := text.Next()
		if err != nil {
			return refuse(pdu.LoginInitiatorError, "%v", err)
		}
		if key == nil {
			break
		}
		if l.auth.take(string(key), string(value)) {
			continue
		}
		if string(key) == "FirstBurstLength" {
			firstBursts = append(firstBursts, string(value))
			continue
		}
		l.negotiate(string(key), string(value))
		switch {
		case l.badName:
			return refuse(pdu.LoginInitiatorError, "%s is not an iSCSI name", key)
		case l.badType:
			return refuse(pdu.LoginBadSessionType, "session type %q", printable(string(value)))
		}
	}
	for _, value := range firstBursts {
		l.negotiate("FirstBurstLength", value)
	}
	if err := l.checkNames(); err != nil {
		return err
	}
	if err := l.authenticate(transit); err != nil {
		return err
	}
	if l.stage == pdu.Operational && !l.declared {
		l.declared = true
		l.answer("MaxRecvDataSegmentLength", strconv.Itoa(maxRecvData))
	}
	return nil
}

// negotiate applies one key and answers it.
func (l *login) negotiate(key, value string) {
	if answer := l.apply(key, value); answer != "" {
		l.answer(key, answer)
	}
}

// answer appends a pair to what is to be sent.
func (l *login) answer(key, value string) { l.reply = pdu.AppendPair(l.reply, key, value) }

// checkNames finds out, with the first request, who wants what, 6.3.1: the
// names must be in it.
func (l *login) checkNames() error {
	if l.checked {
		if l.who != l.checkedWho {
			return refuse(pdu.LoginInitiatorError, "InitiatorName, TargetName or SessionType changed during login")
		}
		return nil
	}
	l.checked, l.checkedWho = true, l.who
	switch {
	case l.initiator == "":
		return refuse(pdu.LoginMissingParameter, "InitiatorName is missing")
	case l.discovery:
		l.auth.chap = l.srv.cfg.DiscoveryCHAP
		return nil
	case l.target == "":
		return refuse(pdu.LoginMissingParameter, "TargetName is missing")
	}
	if err := l.redirect(); err != nil {
		return err
	}
	l.tgt = l.srv.target(l.target)
	switch {
	case l.tgt == nil:
		return refuse(pdu.LoginNotFound, "no such target")
	case !l.tgt.admitsName(l.initiator):
		return refuse(pdu.LoginForbidden, "the target does not admit this initiator")
	case !l.tgt.admitsAddress(l.conn.remote.Addr()):
		return refuse(pdu.LoginForbidden, "the target admits nobody from the network of %v", l.conn.remote.Addr())
	}
	l.auth.chap = l.tgt.CHAP
	if l.tgt.Alias != "" {
		l.answer("TargetAlias", l.tgt.Alias)
	}
	l.answer("TargetPortalGroupTag", strconv.Itoa(int(l.conn.group))) // 13.9
	return nil
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
		c.log.Info("session begins", "alias", l.alias)
	}
}
