package pdu

import "encoding/binary"

// Stage is a stage of the login phase, 11.12.3.
type Stage byte

// The stages. FullFeature is where a login goes, never where it is.
const (
	Security    Stage = 0
	Operational Stage = 1
	FullFeature Stage = 3
)

// String returns the stage's name.
func (s Stage) String() string {
	return [4]string{"security negotiation", "operational negotiation", "reserved stage", "full feature phase"}[s&3]
}

// CSG returns the current stage of a login PDU.
func (h *Header) CSG() Stage { return Stage(h[offFlags] >> 2 & 3) }

// NSG returns the next stage of a login PDU.
func (h *Header) NSG() Stage { return Stage(h[offFlags] & 3) }

// SetStages sets the current and next stage of a login PDU below the bits in
// flags, FlagFinal (which is T here) and FlagContinue.
func (h *Header) SetStages(flags byte, csg, nsg Stage) {
	h[offFlags] = flags | byte(csg)<<2 | byte(nsg)
}

// VersionMax returns the highest version in a login PDU.
func (h *Header) VersionMax() byte { return h[offByte2] }

// VersionMin returns the lowest version in a login request, the active version
// in a login response.
func (h *Header) VersionMin() byte { return h[offByte3] }

// SetVersions sets what VersionMax and VersionMin return.
func (h *Header) SetVersions(highest, lowest byte) { h[offByte2], h[offByte3] = highest, lowest }

// ISID returns the initiator's part of the session ID in a login PDU.
func (h *Header) ISID() [6]byte { return [6]byte(h[offISID:]) }

// SetISID sets the initiator's part of the session ID.
func (h *Header) SetISID(v [6]byte) { copy(h[offISID:], v[:]) }

// TSIH returns the target's session identifying handle in a login PDU.
func (h *Header) TSIH() uint16 { return binary.BigEndian.Uint16(h[offTSIH:]) }

// SetTSIH sets the target's session identifying handle.
func (h *Header) SetTSIH(v uint16) { binary.BigEndian.PutUint16(h[offTSIH:], v) }

// CID returns the connection ID in a login or logout request.
func (h *Header) CID() uint16 { return binary.BigEndian.Uint16(h[offCID:]) }

// SetCID sets the connection ID.
func (h *Header) SetCID(v uint16) { binary.BigEndian.PutUint16(h[offCID:], v) }

// LoginStatus is class and detail of a login response, 11.13.5.
type LoginStatus uint16

// The login statuses.
const (
	LoginSuccess          LoginStatus = 0x0000
	LoginMovedTemporarily LoginStatus = 0x0101
	LoginMovedPermanently LoginStatus = 0x0102
	LoginInitiatorError   LoginStatus = 0x0200
	LoginAuthFailure      LoginStatus = 0x0201
	LoginForbidden        LoginStatus = 0x0202
	LoginNotFound         LoginStatus = 0x0203
	LoginTargetRemoved    LoginStatus = 0x0204
	LoginBadVersion       LoginStatus = 0x0205
	LoginTooManyConns     LoginStatus = 0x0206
	LoginMissingParameter LoginStatus = 0x0207
	LoginCannotInclude    LoginStatus = 0x0208
	LoginBadSessionType   LoginStatus = 0x0209
	LoginNoSession        LoginStatus = 0x020a
	LoginInvalidRequest   LoginStatus = 0x020b
	LoginTargetError      LoginStatus = 0x0300
	LoginServiceDown      LoginStatus = 0x0301
	LoginOutOfResources   LoginStatus = 0x0302
)

// LoginStatus returns class and detail of a login response.
func (h *Header) LoginStatus() LoginStatus {
	return LoginStatus(binary.BigEndian.Uint16(h[offStatus:]))
}

// SetLoginStatus sets class and detail of a login response.
func (h *Header) SetLoginStatus(v LoginStatus) {
	binary.BigEndian.PutUint16(h[offStatus:], uint16(v))
}

// LogoutReason returns the reason code of a logout request, 11.14.1.
func (h *Header) LogoutReason() byte { return h[offFlags] & 0x7f }

// Reasons of logout requests.
const (
	LogoutSession    = 0
	LogoutConnection = 1
	LogoutRecovery   = 2
)

// Response codes of logout responses, 11.15.1.
const (
	LogoutDone        = 0
	LogoutNoCID       = 1
	LogoutNoRecovery  = 2
	LogoutCleanupFail = 3
)

// SetLogoutTimes sets Time2Wait and Time2Retain of a logout response, in
// seconds.
func (h *Header) SetLogoutTimes(wait, retain uint16) {
	binary.BigEndian.PutUint16(h[offOffset:], wait)
	binary.BigEndian.PutUint16(h[offOffset+2:], retain)
}

// LogoutTimes returns Time2Wait and Time2Retain of a logout response, in
// seconds.
func (h *Header) LogoutTimes() (wait, retain uint16) {
	return binary.BigEndian.Uint16(h[offOffset:]), binary.BigEndian.Uint16(h[offOffset+2:])
}

// RejectReason says why a PDU was rejected, 11.17.1.
type RejectReason byte

// The reasons.
const (
	RejectDataDigest   RejectReason = 0x02
	RejectSNACK        RejectReason = 0x03
	RejectProtocol     RejectReason = 0x04
	RejectNotSupported RejectReason = 0x05
	RejectTooMany      RejectReason = 0x06
	RejectInProgress   RejectReason = 0x07
	RejectInvalidField RejectReason = 0x09
	RejectLongOp       RejectReason = 0x0a
	RejectWaitLogout   RejectReason = 0x0c
)

// RejectReason returns the reason of a reject.
func (h *Header) RejectReason() RejectReason { return RejectReason(h[offByte2]) }

// SetRejectReason sets the reason of a reject.
func (h *Header) SetRejectReason(v RejectReason) { h[offByte2] = byte(v) }

// AsyncEvent is what an asynchronous message tells, 11.9.1.
type AsyncEvent byte

// The events.
const (
	AsyncSCSI          AsyncEvent = 0
	AsyncLogoutRequest AsyncEvent = 1
	AsyncDropConn      AsyncEvent = 2
	AsyncDropSession   AsyncEvent = 3
	AsyncNegotiate     AsyncEvent = 4
)

// AsyncEvent returns the event of an asynchronous message.
func (h *Header) AsyncEvent() AsyncEvent { return AsyncEvent(h[offStatus]) }

// SetAsyncEvent sets event and parameters of an asynchronous message.
func (h *Header) SetAsyncEvent(ev AsyncEvent, p1, p2, p3 uint16) {
	h[offStatus], h[offStatus+1] = byte(ev), 0
	binary.BigEndian.PutUint16(h[offStatus+2:], p1)
	binary.BigEndian.PutUint16(h[offStatus+4:], p2)
	binary.BigEndian.PutUint16(h[offStatus+6:], p3)
}
