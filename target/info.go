package target

import (
	"net/netip"
	"time"
)

// SessionInfo describes a session, RFC 7143 4.2.
type SessionInfo struct {
	TSIH      uint16         `json:"tsih"` // handle of the session, unique in this server
	ISID      string         `json:"isid"` // initiator's part of the session ID, in hexadecimal
	Initiator string         `json:"initiator"`
	Alias     string         `json:"alias,omitempty"`  // what the initiator calls itself, not to be trusted
	User      string         `json:"user,omitempty"`   // who has authenticated by CHAP; empty: nobody
	Target    string         `json:"target,omitempty"` // empty: discovery
	Remote    netip.AddrPort `json:"remote"`           // of the first connection
	Local     netip.AddrPort `json:"local"`            // likewise
	Since     time.Time      `json:"since"`
	InFlight  int            `json:"in_flight"` // commands that have to wait, for data or for the unit
	Counters

	Connections []ConnectionInfo `json:"connections"` // that are open
}

// ConnectionInfo describes a connection of a session.
type ConnectionInfo struct {
	CID          uint16         `json:"cid"` // the initiator's number for it
	Remote       netip.AddrPort `json:"remote"`
	Local        netip.AddrPort `json:"local"`
	HeaderDigest bool           `json:"header_digest"` // CRC32C
	DataDigest   bool           `json:"data_digest"`   // CRC32C
}

// Counters count what passed through a session or through a server.
type Counters struct {
	Commands   uint64 `json:"commands"`    // SCSI commands taken
	Inline     uint64 `json:"inline"`      // of these: answered without waiting
	BytesRead  uint64 `json:"bytes_read"`  // Data-In sent
	BytesWrite uint64 `json:"bytes_write"` // Data-Out received
	Reads      uint64 `json:"reads"`       // read system calls on sockets
	Writes     uint64 `json:"writes"`      // write system calls on sockets
	Rejects    uint64 `json:"rejects"`     // PDUs rejected
	Aborts     uint64 `json:"aborts"`      // commands aborted
}

func (c *Counters) add(o *Counters) {
	c.Commands += o.Commands
	c.Inline += o.Inline
	c.BytesRead += o.BytesRead
	c.BytesWrite += o.BytesWrite
	c.Reads += o.Reads
	c.Writes += o.Writes
	c.Rejects += o.Rejects
	c.Aborts += o.Aborts
}

// Stats counts what happened since the server was made.
type Stats struct {
	Accepted      uint64 `json:"accepted"`       // connections
	Refused       uint64 `json:"refused"`        // of these: closed because too many were in login
	LoginFailures uint64 `json:"login_failures"` // of these: ended before full feature phase
	Logins        uint64 `json:"logins"`         // sessions begun
	Connections   int    `json:"connections"`    // open now
	Sessions      int    `json:"sessions"`       // open now
	Buffered      int64  `json:"buffered"`       // bytes of data buffers taken from the common share now
	Counters
}
