package node

import (
	"cmp"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skylun/blobstore"
	"skylun/target"
)

// Config describes a node. DefaultConfig fills it, the configuration file and
// the environment override it, Resolve makes paths absolute, Validate checks
// it.
//
// It names every key of the documented configuration, also those that this
// version cannot honour: Validate refuses them, so that nobody believes in a
// setting that does nothing.
type Config struct {
	Node      string           `yaml:"node"`     // this node's name
	DataDir   string           `yaml:"data_dir"` // database, socket, default member
	Log       LogConfig        `yaml:"log"`
	Blobstore blobstore.Config `yaml:"blobstore"`
	Local     LocalConfig      `yaml:"local"`
	Cache     CacheConfig      `yaml:"cache"`
	Portals   []PortalConfig   `yaml:"portals"`
	Discovery DiscoveryConfig  `yaml:"discovery"`
	Limits    LimitsConfig     `yaml:"limits"`
	Admin     AdminConfig      `yaml:"admin"`
	Targets   []TargetConfig   `yaml:"targets"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// LocalConfig says where layers and caches are kept.
type LocalConfig struct {
	Members    []MemberConfig `yaml:"members"`     // one or more, which are striped over
	StripeSize Size           `yaml:"stripe_size"` // for what is made from now on; 0: 256KiB
	LowSpace   Size           `yaml:"low_space"`   // initiators are warned when less than this is left; 0: never
}

// MemberConfig is one member of the local array. In the configuration it may be
// written as the text of Path alone.
type MemberConfig struct {
	Path     string `yaml:"path"`     // a directory, a block device or a file
	NBD      string `yaml:"nbd"`      // instead: unix:SOCKET, or unix:SOCKET?export=NAME
	Weight   int    `yaml:"weight"`   // share of what is striped; 0: by size
	Allocate string `yaml:"allocate"` // of devices and files: identical, chunks
}

// UnmarshalText reads the short form.
func (m *MemberConfig) UnmarshalText(text []byte) error {
	*m = MemberConfig{Path: string(text)}
	return nil
}

func (m MemberConfig) String() string { return cmp.Or(m.Path, m.NBD) }

// CacheConfig says how copies of image blocks are kept.
type CacheConfig struct {
	MaxSize  Size   `yaml:"max_size"` // of all caches together; 0: as large as the images
	Prefetch string `yaml:"prefetch"` // off, readahead, idle, full: what is fetched before anybody reads it

	PrefetchRate  Size   `yaml:"prefetch_rate"`  // bytes a second that filling takes at most; 0: any
	PrefetchHours string `yaml:"prefetch_hours"` // when whole images may be fetched: 22:00-06:00, ...; empty: always

	// BootProfile is for how long after an initiator has come it is recorded
	// what is read of an image; 0: never.
	BootProfile time.Duration `yaml:"boot_profile"`
}

// AdminConfig says where the API listens besides its Unix socket.
type AdminConfig struct {
	Listen string `yaml:"listen"` // IP:PORT, empty: nowhere
}

// PortalConfig is an address to listen on. In the configuration it may be
// written as the text of Listen alone.
type PortalConfig struct {
	Listen    string   `yaml:"listen"`    // IP:PORT, or IP for port 3260
	Advertise []string `yaml:"advertise"` // what initiators are told instead, empty: where it listens
	Group     int      `yaml:"group"`     // portal group tag, 0: 1
}

// UnmarshalText reads the short form.
func (p *PortalConfig) UnmarshalText(text []byte) error {
	*p = PortalConfig{Listen: string(text)}
	return nil
}

// LimitsConfig is how much initiators can take up. Zero values take the
// defaults of target.Config.
type LimitsConfig struct {
	Sessions          int           `yaml:"sessions"`            // open at once
	SessionsPerSource int           `yaml:"sessions_per_source"` // of them from one address
	Logins            int           `yaml:"logins"`              // connections that have not finished login
	LoginsPerSource   int           `yaml:"logins_per_source"`   // of them from one address
	LoginTimeout      time.Duration `yaml:"login_timeout"`       // until a connection must have logged in
	PingInterval      time.Duration `yaml:"ping_interval"`       // an initiator silent for so long is pinged
	PingTimeout       time.Duration `yaml:"ping_timeout"`        // and dropped after so long without an answer
	Buffers           Size          `yaml:"buffers"`             // data on its way, beyond what each connection has for itself
}

// Address returns where initiators reach a portal that listens on bound.
func (p *PortalConfig) Address(bound netip.AddrPort) string {
	for _, a := range p.Advertise {
		if a, err := target.Advertised(a, bound.Port()); err == nil {
			return a
		}
	}
	return bound.String()
}

// TargetConfig is one iSCSI target.
type TargetConfig struct {
	IQN        string      `yaml:"iqn"`
	Initiators []string    `yaml:"initiators"` // names that may log in, empty: any
	Networks   []string    `yaml:"networks"`   // where initiators may come from, IP or IP/BITS, empty: anywhere
	Chap       ChapConfig  `yaml:"chap"`
	LUNs       []LUNConfig `yaml:"luns"`
}

// LUNConfig is one logical unit of a target: a disk or a CD-ROM drive.
type LUNConfig struct {
	LUN   int          `yaml:"lun"`
	Disk  *DiskConfig  `yaml:"disk"`
	CDROM *CDROMConfig `yaml:"cdrom"`
}

// DiskConfig is a disk that shows a volume, which is created when missing.
type DiskConfig struct {
	Volume   string `yaml:"volume"`
	Image    string `yaml:"image"` // what it is an overlay of, empty: a blank disk
	Size     Size   `yaml:"size"`  // 0: the size of the image
	ReadOnly bool   `yaml:"read_only"`
	Pin      bool   `yaml:"pin"`      // all of the image is to be local, and to stay
	Prefetch string `yaml:"prefetch"` // empty: that of cache
}

// CDROMConfig is a CD-ROM drive.
type CDROMConfig struct {
	Name  string `yaml:"name"`  // one drive for all that name it; empty: one of its own
	Media string `yaml:"media"` // the image that is in it at first; empty: none
}

// DefaultConfig returns what holds where neither the file nor the environment
// says anything. Paths that depend on others are filled by Resolve.
func DefaultConfig() Config {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	return Config{
		Node:    name,
		DataDir: "./data",
		Log:     LogConfig{Level: "info", Format: "text"},
		Local:   LocalConfig{LowSpace: 1 << 30},
		Cache:   CacheConfig{MaxSize: 20 << 30, Prefetch: "idle", BootProfile: 3 * time.Minute},
		Portals: []PortalConfig{{Listen: "127.0.0.1:3260"}},
	}
}

// Resolve fills the defaults that follow from other keys (the blob store and
// the member are below data_dir) and makes relative paths absolute, as seen
// from dir, the directory of the configuration file.
func (c *Config) Resolve(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	abs(&c.DataDir)
	if c.DataDir != "" {
		if c.Blobstore.URL == "" {
			c.Blobstore.URL = "file:" + filepath.Join(c.DataDir, "blobs")
		}
		if len(c.Local.Members) == 0 {
			c.Local.Members = []MemberConfig{{Path: filepath.Join(c.DataDir, "local")}}
		}
	}
	for i := range c.Local.Members {
		m := &c.Local.Members[i]
		abs(&m.Path)
		if socket, ok := strings.CutPrefix(m.NBD, "unix:"); ok {
			socket, rest, query := strings.Cut(socket, "?")
			abs(&socket)
			if m.NBD = "unix:" + socket; query {
				m.NBD += "?" + rest
			}
		}
	}
	if p, ok := strings.CutPrefix(c.Blobstore.URL, "file:"); ok && p != "" {
		abs(&p)
		c.Blobstore.URL = "file:" + p
	}
	abs(&c.Blobstore.ConnectionStringFile)
	abs(&c.Blobstore.SASTokenFile)
	abs(&c.Blobstore.AccountKeyFile)
	c.Discovery.Chap.resolve(abs)
	for i := range c.Targets {
		c.Targets[i].Chap.resolve(abs)
	}
	return nil
}

// DatabasePath returns where the node's database is.
func (c *Config) DatabasePath() string { return filepath.Join(c.DataDir, "skylun.db") }

// SocketPath returns where the node's API listens.
func (c *Config) SocketPath() string { return filepath.Join(c.DataDir, "skylun.sock") }
