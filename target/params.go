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
	time2Wait:     2,
	time2Retain:   20,
}

// What we offer or accept at most.
const (
	ourMaxBurst   = 1<<24 - 512
	ourFirstBurst = 256 << 10
)
