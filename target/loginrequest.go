package target

import (
	"fmt"
	"strconv"

	"skylun/target/pdu"
)

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
