package lun

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// nexusName is an I_T nexus by the names of its two ports (SAM-5 4.8): what
// stays when a session ends and the same initiator port comes back. An iSCSI
// initiator port is a node name and an ISID, a target port a node name and a
// portal group tag (RFC 7143 4.4.1.1).
type nexusName struct {
	Initiator string `json:"initiator"` // in lower case, as names are compared, RFC 3722
	ISID      isid   `json:"isid"`
	Target    string `json:"target"`
	Group     uint16 `json:"portal_group"`
}

// isid is an initiator session ID, RFC 7143 11.12.5.
type isid [6]byte

// MarshalText implements encoding.TextMarshaler.
func (i isid) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, i[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *isid) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(i) {
		return fmt.Errorf("%q is no ISID", text)
	}
	copy(i[:], b)
	return nil
}

// name returns the name of a nexus; commands without one share a name that no
// session has.
func (n *Nexus) name() nexusName {
	if n == nil {
		return nexusName{}
	}
	return nexusName{strings.ToLower(n.InitiatorName), n.ISID, strings.ToLower(n.TargetName), n.PortalGroup}
}

// An iSCSI TransportID (SPC-4 7.6.4.6) names an initiator port, or with format
// 00b an initiator node, which is all its ports:
//
//	0      format (2 bits), 0, protocol identifier (5h: iSCSI)
//	1      reserved
//	2..3   additional length: what follows, a multiple of four, 20 or more
//	4..    name, or with format 01b name ",i,0x" ISID in hexadecimal; NULs
const (
	transportHeader = 4
	transportLeast  = 20 // of what follows the header
	formatNode      = 0x00
	formatPort      = 0x40
	protocolISCSI   = 0x05
	isidSeparator   = ",i,0x"
	longestName     = 223 // bytes, RFC 7143 4.2.7.1
)

// appendTransportID appends the TransportID of w's initiator port.
func appendTransportID(b []byte, w nexusName) []byte {
	text := w.Initiator + isidSeparator + hex.EncodeToString(w.ISID[:])
	n := max(transportLeast, (len(text)+4)&^3) // with one NUL at least
	b = append(b, formatPort|protocolISCSI, 0, byte(n>>8), byte(n))
	return append(append(b, text...), make([]byte, n-len(text))...)
}

// transportID is a decoded TransportID.
type transportID struct {
	initiator string
	isid      isid
	port      bool // it names one port, that of isid; else all of the node
}

// cutTransportID decodes the TransportID that b begins with, and returns what
// comes behind it. ok is false when there is none that iSCSI knows.
func cutTransportID(b []byte) (id transportID, rest []byte, ok bool) {
	if len(b) < transportHeader+transportLeast {
		return id, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < transportLeast || n%4 != 0 || n > len(b)-transportHeader {
		return id, nil, false
	}
	text, rest := b[transportHeader:transportHeader+n], b[transportHeader+n:]
	name, padding, _ := strings.Cut(string(text), "\x00")
	if len(name) == n || strings.Trim(padding, "\x00") != "" {
		return id, nil, false
	}
	switch b[0] {
	case formatNode | protocolISCSI:
	case formatPort | protocolISCSI:
		at := strings.LastIndex(name, isidSeparator)
		if at < 0 {
			return id, nil, false
		}
		digits := name[at+len(isidSeparator):]
		v, err := strconv.ParseUint(digits, 16, 48)
		if err != nil {
			return id, nil, false
		}
		var wide [8]byte
		binary.BigEndian.PutUint64(wide[:], v)
		copy(id.isid[:], wide[2:])
		name, id.port = name[:at], true
	default:
		return id, nil, false
	}
	if name == "" || len(name) > longestName {
		return id, nil, false
	}
	id.initiator = strings.ToLower(name)
	return id, rest, true
}
