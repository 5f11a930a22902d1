// Package target is the iSCSI transport (RFC 7143): it takes SCSI commands from
// initiators and hands them to the logical units of package lun. The words
// are those of the RFC.
//
//	Server      portals, targets, sessions: who may come in, who is there
//	session     one I_T nexus: its connections and the order of their commands
//	conn        one TCP connection: reader, workers, writer
//	login       from the first PDU to the full feature phase, text keys
//	task        one SCSI command from its PDU to its answer
//	target/pdu  the wire format, without state
//
// # Who comes in
//
// A connection is accepted when there is room for one more that has not logged
// in, in all and of its source. Its first login request says who wants
// what; then it is asked, in this order, whether the login is redirected, the
// target is there, and admits initiators of that name and from that address. Each
// of these has a login status of its own. Only then CHAP begins, if the target or
// discovery wants it, and whatever goes wrong there has the same answer. The
// session tables come last: nobody takes a session away who has not authenticated as the
// user that opened it.
//
// # How a command passes through
//
//	socket
//	  | one read brings many PDUs
//	reader ------ Try ends it -------------------+
//	  |  \                                       v
//	  |   task table <-- Data-Out, aborts    next batch --> one vectored write --> socket
//	  v                                          ^
//	workers ----- Execute ends it ---------------+
//
// The reader of a connection takes a PDU where it lies in the input buffer and
// asks the unit to Try the command. What can be answered without waiting ends
// right there. Answers gather in a batch as long as more requests are buffered and
// leave in one system call; whoever finishes a command writes when nobody else
// does. A command that has to wait goes to a worker with a context of its own,
// which ends with an abort, a logout or the connection. In the steady state a
// command that ends in Try costs no allocation: tasks, headers and data buffers are
// used again, and the buffer that a file was read into is what is sent.
//
// # Order and locks
//
// The reader owns the input. Everything else of a connection is guarded by
// its mutex, which is never held while a unit works or a system call may block.
// A StatSN is given out when a PDU is appended to the batch, so PDUs have them in the order in
// which they leave. Server.mu is taken before a connection's mutex, never after, and that of a window is taken last.
//
// What the connections of a session share is the command window, which does
// without a lock as long as every command comes in its turn (window.go). A task
// belongs to the connection it came through, which has its data, executes it and
// sends its answer.
//
// # What a peer can use up
//
// Before login a connection holds about 8 KiB, its goroutine included, 8 KiB more when a
// header has announced them, and loginText and loginReply if it uses the C bit; that for
// Config.LoginTimeout at most. There are no more than Config.MaxLogins of that kind, and
// Config.MaxSourceLogins from one source. After login it holds an
// input buffer (inputSize) and the headers of what is queued; a session has up to ourMaxConns connections. Data buffers are
// counted: a command begins when its data fits Config.ConnectionBuffers and,
// beyond a share of Config.MaxTransfer that each connection has for itself,
// Config.ServerBuffers; until then it waits in a queue, in which it holds nothing
// but the unsolicited data that came with it. So all sessions together buffer at most
//
//	ServerBuffers + MaxSessions * MaxConnections * (MaxTransfer + QueueDepth * FirstBurstLength)
//
// A peer that does not read its answers stops being read from when queueSize
// bytes wait for it, holds up nobody else, and is dropped after
// Config.PingInterval and Config.PingTimeout.
//
// # What is not there yet
//
// Error recovery levels 1 and 2.
package target
