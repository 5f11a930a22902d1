package target

import (
	"errors"
	"fmt"
	"time"
)

// defaultPort is where iSCSI targets listen, RFC 7143 14.
const defaultPort = 3260

// Config says where a server listens and how much it gives to its peers. Zero
// values take the defaults.
type Config struct {
	// Portals are where to listen.
	Portals []Portal `yaml:"portals"`

	// DiscoveryCHAP says how initiators authenticate for a discovery session;
	// nil: they do not.
	DiscoveryCHAP *CHAP `yaml:"-"`

	MaxSessions  int           `yaml:"max_sessions"`  // normal and discovery sessions; default 256
	MaxLogins    int           `yaml:"max_logins"`    // connections that have not finished login; default 64
	LoginTimeout time.Duration `yaml:"login_timeout"` // from accept to full feature phase; default 15s

	// MaxSourceSessions and MaxSourceLogins are how many of these one source
	// address can have, so that it cannot keep others out. Default: half of
	// all, but at least 64 and 16.
	MaxSourceSessions int `yaml:"max_source_sessions"`
	MaxSourceLogins   int `yaml:"max_source_logins"`

	PingInterval time.Duration `yaml:"ping_interval"` // a peer silent for so long is pinged; default 15s, negative: never
	PingTimeout  time.Duration `yaml:"ping_timeout"`  // and dropped after so long without an answer; default 15s

	// LogoutTimeout is how long initiators are given to log out when the
	// server stops or a target is removed; default 1s, negative: they are not
	// asked.
	LogoutTimeout time.Duration `yaml:"logout_timeout"`

	QueueDepth int `yaml:"queue_depth"` // commands a session may have in flight; default 128
	Workers    int `yaml:"workers"`     // commands a connection executes at once that have to wait; default 64

	// MaxTransfer is the most Data-Out or Data-In of one command, in bytes;
	// default 8 MiB, which is what the units take.
	MaxTransfer int `yaml:"max_transfer"`

	// ConnectionBuffers is the most data that is buffered for one
	// connection, in bytes; default 64 MiB.
	ConnectionBuffers int64 `yaml:"connection_buffers"`

	// ServerBuffers is the most data that is buffered for all connections,
	// beyond the MaxTransfer that each has for itself, in bytes; default 1 GiB.
	ServerBuffers int64 `yaml:"server_buffers"`
}

// setDefaults fills in what is zero.
func (c *Config) setDefaults() {
	set(&c.MaxSessions, 256)
	set(&c.MaxLogins, 64)
	set(&c.MaxSourceSessions, max(c.MaxSessions/2, 64))
	set(&c.MaxSourceLogins, max(c.MaxLogins/2, 16))
	set(&c.LoginTimeout, 15*time.Second)
	set(&c.PingInterval, 15*time.Second)
	set(&c.PingTimeout, 15*time.Second)
	set(&c.LogoutTimeout, time.Second)
	set(&c.QueueDepth, 128)
	set(&c.Workers, 64)
	set(&c.MaxTransfer, 8<<20)
	set(&c.ConnectionBuffers, 64<<20)
	set(&c.ServerBuffers, 1<<30)
}

func set[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate reports all impossible values at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Portals) == 0 {
		bad("portals: none given; list at least one address, such as 127.0.0.1:%d", defaultPort)
	}
	errs = append(errs, checkPortals(c.Portals)...)
	for _, n := range []struct {
		key   string
		v     int64
		limit int64
	}{
		{"max_sessions", int64(c.MaxSessions), 1<<16 - 2},
		{"max_logins", int64(c.MaxLogins), 1 << 20},
		{"max_source_sessions", int64(c.MaxSourceSessions), 1 << 20},
		{"max_source_logins", int64(c.MaxSourceLogins), 1 << 20},
		{"login_timeout", int64(c.LoginTimeout), int64(time.Hour)},
		{"ping_timeout", int64(c.PingTimeout), int64(24 * time.Hour)},
		{"logout_timeout", max(0, int64(c.LogoutTimeout)), int64(time.Hour)},
		{"queue_depth", int64(c.QueueDepth), 1 << 16},
		{"workers", int64(c.Workers), 1 << 16},
		{"max_transfer", int64(c.MaxTransfer), 1 << 30},
		{"connection_buffers", c.ConnectionBuffers, 1 << 50},
		{"server_buffers", c.ServerBuffers, 1 << 50},
	} {
		if n.v < 0 || n.v > n.limit {
			bad("%s: %d is not between 1 and %d", n.key, n.v, n.limit)
		}
	}
	if c.DiscoveryCHAP != nil {
		if err := c.DiscoveryCHAP.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("discovery: %w", err))
		}
	}
	return errors.Join(errs...)
}
