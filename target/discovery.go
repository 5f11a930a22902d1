package target

import (
	"net/netip"
	"slices"
	"strconv"

	"skylun/target/pdu"
)

const textLimit = 16 << 10 // text of one request with all its continuations

// textExchange is a text negotiation that takes more than one PDU, 11.10: the
// request that is being continued, or the answer that is.
type textExchange struct {
	itt     uint32
	ttt     uint32 // in our last answer, NoTag when the exchange is over
	request []byte
	reply   []byte
}

// textRequest takes a text request.
func (c *conn) textRequest(h *pdu.Header) error {
	if !c.receivedNow(h) {
		return nil
	}
	data, err := c.payload()
	if err != nil {
		return err
	}
	x := &c.text
	more := h.Flags()&pdu.FlagContinue != 0
	switch {
	case h.ITT() == pdu.NoTag || more && h.Final():
		return c.reject(h, pdu.RejectInvalidField)
	case h.TTT() == pdu.NoTag: // a new exchange ends the one before, 11.10.4
		*x = textExchange{itt: h.ITT(), ttt: pdu.NoTag}
	case h.TTT() != x.ttt || h.ITT() != x.itt || len(x.reply) > 0 && len(data) > 0:
		*x = textExchange{ttt: pdu.NoTag}
		return c.reject(h, pdu.RejectInvalidField)
	}
	if len(x.request)+len(data) > textLimit {
		*x = textExchange{ttt: pdu.NoTag}
		return c.reject(h, pdu.RejectLongOp)
	}
	x.request = append(x.request, data...)
	if !more && len(x.request) > 0 {
		reply, err := c.textReply(x.request)
		if err != nil {
			*x = textExchange{ttt: pdu.NoTag}
			return c.reject(h, pdu.RejectProtocol)
		}
		x.request, x.reply = nil, reply
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	part := x.reply[:min(len(x.reply), c.params.maxSend)]
	x.reply = x.reply[len(part):]
	r := c.respond(pdu.TextResp, h.ITT(), true)
	r.SetLUN(h.LUN())
	switch {
	case h.Final() && len(x.reply) == 0:
		x.ttt = pdu.NoTag
	default:
		x.ttt = c.nextTTT()
		r.SetFlags(0)
		if len(x.reply) > 0 {
			r.SetFlags(pdu.FlagContinue)
		}
	}
	r.SetTTT(x.ttt)
	r.SetDataLen(len(part))
	c.next.copy(part)
	c.drainOutput(queueSize)
	return c.err
}

// textReply answers the keys of a text request.
func (c *conn) textReply(request []byte) (reply []byte, err error) {
	text := pdu.Text(request)
	sent := false
	for {
		key, value, err := text.Next()
		if err != nil || key == nil {
			return reply, err
		}
		switch k, v := string(key), string(value); {
		case k == "SendTargets" && !sent: // the answer may be long: once is enough
			sent = true
			reply = c.sendTargets(reply, v)
		case k == "MaxRecvDataSegmentLength": // may be declared anew at any time, 13.12
			if size, ok := number(v, 512, 1<<24-1); ok {
				c.mu.Lock()
				c.params.maxSend = size
				c.mu.Unlock()
			} else {
				reply = pdu.AppendPair(reply, k, answerReject)
			}
		case keyRules[k] != nil: // for the login only
			reply = pdu.AppendPair(reply, k, answerReject)
		default:
			reply = pdu.AppendPair(reply, k, answerNotUnderstood)
		}
	}
}

// sendTargets appends the answer to SendTargets, 4.3 and 13.3: of the targets
// that the initiator may use, all (in a discovery session), the one named, or
// the one of the session.
func (c *conn) sendTargets(reply []byte, value string) []byte {
	name, ok := peerName([]byte(value))
	switch {
	case value == "All" && !c.sess.discovery:
		return pdu.AppendPair(reply, "SendTargets", answerReject)
	case value == "All":
		name = ""
	case value == "" && c.sess.discovery:
		return pdu.AppendPair(reply, "SendTargets", answerReject)
	case value == "":
		name = c.sess.target.Name
	case !ok:
		return pdu.AppendPair(reply, "SendTargets", answerReject)
	}
	addrs := c.advertised()
	for _, t := range c.srv.targetList() {
		if name != "" && t.Name != name || !t.admits(c.sess.nexus.InitiatorName, c.remote.Addr()) {
			continue
		}
		reply = pdu.AppendPair(reply, "TargetName", t.Name)
		if t.Alias != "" {
			reply = pdu.AppendPair(reply, "TargetAlias", t.Alias)
		}
		for _, a := range addrs {
			reply = pdu.AppendPair(reply, "TargetAddress", a)
		}
	}
	return reply
}

// advertised returns the addresses of all portals as the peer can reach them,
// with their groups, 13.8. A portal that listens on all addresses is reached at
// the one that the peer has used, if that is of its family. Loopback and link-local
// addresses are of use only to peers that use one themselves.
func (c *conn) advertised() []string {
	var addrs []string
	add := func(a string, p *portal) {
		if a += "," + strconv.Itoa(int(p.group)); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	here := c.local.Addr()
	for _, p := range c.srv.portalList() {
		ip := p.addr.Addr()
		if ip.IsUnspecified() && (p.both || ip.Is4() == here.Is4()) {
			ip = here
		}
		switch {
		case len(p.advertise) > 0:
			for _, a := range p.advertise {
				add(a, p)
			}
		case !ip.IsValid() || ip.IsUnspecified():
		case ip.IsLoopback() && !here.IsLoopback(), ip.IsLinkLocalUnicast() && !here.IsLinkLocalUnicast():
		default:
			add(netip.AddrPortFrom(ip.WithZone(""), p.addr.Port()).String(), p)
		}
	}
	return addrs
}
