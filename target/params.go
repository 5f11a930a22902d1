package target

// params are the negotiated values of a connection and its session that matter
// to a target, RFC 7143 13.
type params struct {
	maxSend       int  // MaxRecvDataSegmentLength of the initiator
	maxBurst      int  // MaxBurstLength
	firstBurst    int  // FirstBurstLength
	initialR2T    bool // InitialR2T
	immediateData bool // ImmediateData
	maxR2T        int  // MaxOutstandingR2T
	maxConns      int  // MaxConnections
	headerDigest  bool // HeaderDigest: CRC32C
	dataDigest    bool // DataDigest: CRC32C
	time2Wait     int  // DefaultTime2Wait, seconds
	time2Retain   int  // DefaultTime2Retain, seconds
}

// defaultParams hold until something else is negotiated.
var defaultParams = params{
	maxSend:       8192,
	maxBurst:      262144,
	firstBurst:    65536,
	initialR2T:    true,
	immediateData: true,
	maxR2T:        1,
	maxConns:      1,
	time2Wait:     2,
	time2Retain:   20,
}

// session returns p as it is for a connection that is added to a session with
// the parameters s: only some belong to the connection, 13.
func (p params) session(s params) params {
	s.maxSend, s.headerDigest, s.dataDigest = p.maxSend, p.headerDigest, p.dataDigest
	return s
}

// What we offer or accept at most.
const (
	ourMaxBurst   = 1<<24 - 512
	ourFirstBurst = 256 << 10
	ourMaxConns   = 8
)
