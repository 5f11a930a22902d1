package initiator

import (
	"fmt"
	"slices"
	"strconv"

	"skylun/target/pdu"
)

// Keys are text keys and their values, in order.
type Keys []string // key, value, key, value, ...

// Text returns the keys as they are sent.
func (k Keys) Text() []byte {
	var b []byte
	for i := 0; i+1 < len(k); i += 2 {
		b = pdu.AppendPair(b, k[i], k[i+1])
	}
	return b
}

// Get returns the values of a key.
func (k Keys) Get(key string) []string {
	var values []string
	for i := 0; i+1 < len(k); i += 2 {
		if k[i] == key {
			values = append(values, k[i+1])
		}
	}
	return values
}

// ParseKeys is the opposite of Text.
func ParseKeys(b []byte) (Keys, error) {
	var k Keys
	text := pdu.Text(b)
	for {
		key, value, err := text.Next()
		if key == nil || err != nil {
			return k, err
		}
		k = append(k, string(key), string(value))
	}
}

// Options says how to log in.
type Options struct {
	Initiator string
	Target    string // empty: discovery session
	Security  Keys   // sent in the security stage; nil: that stage is left out
	CHAP      *CHAP  // how to authenticate in the security stage, if so
	Keys      Keys   // sent in the operational stage; nil: what a friendly initiator says
}

// Friendly is what an initiator says that takes whatever helps.
var Friendly = Keys{
	"HeaderDigest", "None", "DataDigest", "None", "InitialR2T", "No", "ImmediateData", "Yes",
	"MaxRecvDataSegmentLength", "262144", "MaxBurstLength", "262144", "FirstBurstLength", "65536",
	"MaxOutstandingR2T", "1", "MaxConnections", "1", "DefaultTime2Wait", "2", "DefaultTime2Retain", "0",
	"DataPDUInOrder", "Yes", "DataSequenceInOrder", "Yes", "ErrorRecoveryLevel", "0",
}

// StatusError is a login response that is no success.
type StatusError struct{ Status pdu.LoginStatus }

func (e StatusError) Error() string { return fmt.Sprintf("login status 0x%04x", uint16(e.Status)) }

// NewLogin returns a login request.
func (c *Conn) NewLogin(csg, nsg pdu.Stage, transit bool, keys Keys) *PDU {
	p := c.NewRequest(pdu.LoginReq)
	flags := byte(0)
	if transit {
		flags = pdu.FlagFinal
	} else {
		nsg = 0
	}
	p.SetStages(flags, csg, nsg)
	p.SetISID(c.ISID)
	p.SetTSIH(c.TSIH)
	p.SetTTT(0)
	p.SetCID(c.CID)
	p.Data = keys.Text()
	return p
}

// Names returns the keys that must be in the first request.
func (o Options) Names() Keys {
	k := Keys{"InitiatorName", o.Initiator}
	if o.Target == "" {
		return append(k, "SessionType", "Discovery")
	}
	return append(k, "TargetName", o.Target, "SessionType", "Normal")
}

// Login logs in and returns all keys that the target has sent.
func (c *Conn) Login(o Options) (Keys, error) {
	if o.Keys == nil {
		o.Keys = Friendly
	}
	var answers Keys
	first := o.Names()
	itt := c.NextITT()
	exchange := func(csg, nsg pdu.Stage, keys Keys) error {
		p := c.NewLogin(csg, nsg, true, keys)
		p.SetITT(itt)
		if err := c.Send(p); err != nil {
			return err
		}
		r, k, err := c.ReceiveLogin()
		answers = append(answers, k...)
		if err == nil && (!r.Final() || r.NSG() != nsg) {
			err = fmt.Errorf("target does not go on to %v: %v", nsg, r)
		}
		return err
	}
	if o.CHAP != nil {
		got, err := c.authenticate(o.CHAP, itt, first)
		answers = append(answers, got...)
		if err != nil {
			return answers, err
		}
		first = nil
	} else if o.Security != nil {
		if err := exchange(pdu.Security, pdu.Operational, slices.Concat(first, o.Security)); err != nil {
			return answers, err
		}
		first = nil
	}
	if err := exchange(pdu.Operational, pdu.FullFeature, slices.Concat(first, o.Keys)); err != nil {
		return answers, err
	}
	return answers, c.agree(o.Keys, answers)
}

// ReceiveLogin receives a login response and its keys, and takes note of the
// TSIH.
func (c *Conn) ReceiveLogin() (*PDU, Keys, error) {
	r, err := c.Receive()
	if err != nil {
		return nil, nil, err
	}
	if r.Opcode() != pdu.LoginResp {
		return r, nil, fmt.Errorf("%v instead of a login response", r)
	}
	if s := r.LoginStatus(); s != pdu.LoginSuccess {
		return r, nil, StatusError{s}
	}
	if r.Final() && r.NSG() == pdu.FullFeature {
		c.TSIH = r.TSIH()
	}
	keys, err := ParseKeys(r.Data)
	return r, keys, err
}

// agree keeps what was negotiated.
func (c *Conn) agree(sent, got Keys) error {
	for i := 0; i+1 < len(got); i += 2 {
		key, value := got[i], got[i+1]
		if key != "MaxRecvDataSegmentLength" && sent.Get(key) == nil || value == "Reject" {
			continue
		}
		var err error
		switch key {
		case "MaxRecvDataSegmentLength":
			c.MaxSend, err = strconv.Atoi(value)
		case "MaxBurstLength":
			c.MaxBurst, err = strconv.Atoi(value)
		case "FirstBurstLength":
			c.FirstBurst, err = strconv.Atoi(value)
		case "InitialR2T":
			c.InitialR2T = value == "Yes"
		case "ImmediateData":
			c.ImmediateData = value == "Yes"
		case "HeaderDigest":
			c.HeaderDigest = value == "CRC32C"
		case "DataDigest":
			c.DataDigest = value == "CRC32C"
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", key, value, err)
		}
	}
	return nil
}

// Logout ends the session.
func (c *Conn) Logout() error {
	p := c.NewRequest(pdu.LogoutReq)
	p.SetFlags(pdu.FlagFinal | pdu.LogoutSession)
	if err := c.Send(p); err != nil {
		return err
	}
	for {
		r, err := c.Receive()
		if err != nil {
			return err
		}
		if r.Opcode() == pdu.LogoutResp {
			if r.ResponseCode() != pdu.LogoutDone {
				return fmt.Errorf("logout response %d", r.ResponseCode())
			}
			return c.Close()
		}
	}
}

// Discover returns the answer to SendTargets.
func (c *Conn) Discover(what string) (Keys, error) {
	p := c.NewRequest(pdu.TextReq)
	p.Data = pdu.AppendPair(nil, "SendTargets", what)
	var text []byte
	for {
		if err := c.Send(p); err != nil {
			return nil, err
		}
		r, err := c.Receive()
		if err != nil {
			return nil, err
		}
		if r.Opcode() != pdu.TextResp || r.ITT() != p.ITT() {
			return nil, fmt.Errorf("%v instead of a text response", r)
		}
		text = append(text, r.Data...)
		if r.Final() {
			return ParseKeys(text)
		}
		itt := p.ITT()
		p = c.NewRequest(pdu.TextReq)
		p.SetITT(itt)
		p.SetTTT(r.TTT())
	}
}
