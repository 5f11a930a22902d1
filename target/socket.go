package target

import (
	"net"
	"time"
)

// socket is the byte stream of a connection. One goroutine reads and one
// writes at a time; interrupt and shut may be called beside them, close only
// when they are through.
type socket interface {
	// read reads what there is into p, and when that is full into more, and
	// waits for something if there is nothing. idle says that nobody else has
	// work to do on behalf of the connection.
	read(p, more []byte, idle bool) (int, error)

	// write writes all of vec, which it may change.
	write(vec [][]byte) error

	// interrupt makes read fail, now and later.
	interrupt()

	// shut makes read and write fail, now and later.
	shut()

	// close gives the socket back.
	close()
}

// netSocket is any net.Conn.
type netSocket struct {
	net.Conn
	vec net.Buffers
}

func (s *netSocket) read(p, _ []byte, _ bool) (int, error) { return s.Read(p) }

func (s *netSocket) write(vec [][]byte) error {
	s.vec = vec
	_, err := s.vec.WriteTo(s.Conn)
	return err
}

func (s *netSocket) interrupt() { s.SetReadDeadline(time.Unix(1, 0)) }
func (s *netSocket) shut()      { s.Close() }
func (s *netSocket) close()     { s.Close() }
