package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"time"

	"skylun/overlay"
	"skylun/target"
)

// maxSocketPath is the longest path a Unix socket can have: sun_path of
// unix(7) without its terminating zero.
const maxSocketPath = 107

// MaxLUN is the largest logical unit number: more is of no use to Windows and
// ESXi.
const MaxLUN = 255

// MaxVolumeSize is the largest disk a volume can be. Files of 16 TiB and more
// do not fit on ext4, the usual home of a member.
const MaxVolumeSize Size = 16<<40 - 1<<20

// minCacheSize is the least that a cache works with: a few fetches and what is
// being read.
const minCacheSize Size = 16 << 20

// Validate returns everything that is wrong with c, as Problems, or nil. It
// does no I/O but for looking at local.members. c must have been resolved.
func (c *Config) Validate() error {
	var ps Problems
	c.validateNode(&ps)
	c.validateLocal(&ps)
	c.validatePortals(&ps)
	c.Discovery.Chap.validate(&ps, "discovery.chap")
	c.Limits.validate(&ps)
	c.validateTargets(&ps)
	return ps.err()
}

func (c *Config) validateNode(ps *Problems) {
	if c.Node == "" {
		ps.add("node", "empty; give this node a name or leave the key out")
	}
	if c.DataDir == "" {
		ps.add("data_dir", "empty; name a directory for the database and the socket")
	} else if n := len(c.SocketPath()); n > maxSocketPath {
		ps.add("data_dir", "the socket %s would have a path of %d bytes, the system allows %d; use a shorter directory", c.SocketPath(), n, maxSocketPath)
	}
	if _, err := c.Log.level(); err != nil {
		ps.add("log.level", "%v", err)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		ps.add("log.format", "%q is neither text nor json", c.Log.Format)
	}
	if err := c.Blobstore.Validate(); err != nil {
		*ps = append(*ps, storeProblems(err)...)
	}
	if c.Cache.MaxSize != 0 && c.Cache.MaxSize < minCacheSize {
		ps.add("cache.max_size", "%v is less than %v; give the cache that or more, or 0 for no limit", c.Cache.MaxSize, minCacheSize)
	}
	validatePrefetch(ps, "cache.prefetch", c.Cache.Prefetch)
	if d := c.Cache.BootProfile; d < 0 || d > time.Hour {
		ps.add("cache.boot_profile", "%v is not between 0 (never) and 1h", d)
	}
	if r := c.Cache.PrefetchRate; r != 0 && r < 64<<10 {
		ps.add("cache.prefetch_rate", "%v a second is less than 64KiB; write 0 for no limit, or cache.prefetch: off", r)
	}
	if _, err := overlay.ParseHours(c.Cache.PrefetchHours); err != nil {
		ps.add("cache.prefetch_hours", "%v", err)
	}
	if c.Admin.Listen != "" {
		ps.unsupported("admin.listen", "the API is on the Unix socket "+c.SocketPath()+" only; leave the key out")
	}
}

func validatePrefetch(ps *Problems, key, value string) {
	if err := CheckStrategy(value); err != nil {
		ps.add(key, "%v", err)
	}
}

// CheckStrategy tells what is wrong with the name of a prefetch strategy. None at
// all leaves the choice to others.
func CheckStrategy(name string) error {
	if _, known := overlay.ParseStrategy(name); !known && name != "" {
		return fmt.Errorf("%q is none of off, readahead, idle, full", name)
	}
	return nil
}

func (c *Config) validatePortals(ps *Problems) {
	if len(c.Portals) == 0 {
		ps.add("portals", "empty; name at least one IP:PORT to listen on, such as 127.0.0.1:3260")
	}
	listening := make([]netip.AddrPort, len(c.Portals))
	for i, p := range c.Portals {
		key := fmt.Sprintf("portals[%d]", i)
		if p.Listen == "" {
			ps.add(key+".listen", "missing; name an IP:PORT to listen on, such as 127.0.0.1:3260")
		} else if a, err := target.ParsePortal(p.Listen); err != nil {
			ps.add(key, "%v", err)
		} else {
			for j, o := range listening[:i] {
				if o.IsValid() && target.Overlap(a, o) {
					ps.add(key, "%s is portals[%d] (%s) already", p.Listen, j, c.Portals[j].Listen)
					break
				}
			}
			listening[i] = a
		}
		if p.Group < 0 || p.Group > 65535 {
			ps.add(key+".group", "%d is not between 1 and 65535", p.Group)
		}
		for j, a := range p.Advertise {
			if _, err := target.Advertised(a, 1); err != nil {
				ps.add(fmt.Sprintf("%s.advertise[%d]", key, j), "%v", err)
			}
		}
	}
}

func (l *LimitsConfig) validate(ps *Problems) {
	for _, n := range []struct {
		key       string
		v, most   int
		of        string
		available int
	}{
		{"limits.sessions", l.Sessions, 65000, "", 0},
		{"limits.sessions_per_source", l.SessionsPerSource, 65000, "limits.sessions", l.Sessions},
		{"limits.logins", l.Logins, 65000, "", 0},
		{"limits.logins_per_source", l.LoginsPerSource, 65000, "limits.logins", l.Logins},
	} {
		switch {
		case n.v < 0 || n.v > n.most:
			ps.add(n.key, "%d is not between 1 and %d", n.v, n.most)
		case n.available > 0 && n.v > n.available:
			ps.add(n.key, "%d is more than %s, %d", n.v, n.of, n.available)
		}
	}
	for _, d := range []struct {
		key string
		v   time.Duration
	}{
		{"limits.login_timeout", l.LoginTimeout},
		{"limits.ping_interval", l.PingInterval},
		{"limits.ping_timeout", l.PingTimeout},
	} {
		if d.v != 0 && (d.v < time.Second || d.v > time.Hour) {
			ps.add(d.key, "%v is not between 1s and 1h", d.v)
		}
	}
	if l.Buffers != 0 && (l.Buffers < 1<<20 || l.Buffers > 1<<40) {
		ps.add("limits.buffers", "%v is not between 1MiB and 1TiB", l.Buffers)
	}
}

func (c *Config) validateTargets(ps *Problems) {
	targets := map[string]int{}
	volumes := map[string]volumeUse{}
	drives := map[string]driveUse{}
	for i, t := range c.Targets {
		key := fmt.Sprintf("targets[%d]", i)
		if t.IQN == "" {
			ps.add(key+".iqn", "missing; name the target, such as iqn.2026-11.com.example:disk1")
		} else if err := target.ValidIQN(t.IQN); err != nil {
			ps.add(key+".iqn", "%v", err)
		} else if j, dup := targets[t.IQN]; dup {
			ps.add(key+".iqn", "%s is declared as targets[%d] already; put all its luns there", t.IQN, j)
		} else {
			targets[t.IQN] = i
		}
		for j, name := range t.Initiators {
			if !initiatorName.MatchString(name) || len(name) > maxISCSIName {
				ps.add(fmt.Sprintf("%s.initiators[%d]", key, j), "%q is not the name of an initiator, such as iqn.1994-05.com.redhat:host1", name)
			}
		}
		for j, n := range t.Networks {
			if _, err := target.ParseNetwork(n); err != nil {
				ps.add(fmt.Sprintf("%s.networks[%d]", key, j), "%v", err)
			}
		}
		t.Chap.validate(ps, key+".chap")
		luns := map[int]int{}
		for j := range t.LUNs {
			validateLUN(ps, fmt.Sprintf("%s.luns[%d]", key, j), j, &t.LUNs[j], luns, volumes)
			if c := t.LUNs[j].CDROM; c != nil {
				validateDrive(ps, fmt.Sprintf("%s.luns[%d].cdrom", key, j), t.IQN, *c, drives)
			}
		}
	}
}

// volumeUse is where and how a volume was declared first.
type volumeUse struct {
	key  string
	disk DiskConfig
}

func validateLUN(ps *Problems, key string, j int, l *LUNConfig, luns map[int]int, volumes map[string]volumeUse) {
	if l.LUN < 0 || l.LUN > MaxLUN {
		ps.add(key+".lun", "%d is not between 0 and %d", l.LUN, MaxLUN)
	} else if k, dup := luns[l.LUN]; dup {
		ps.add(key+".lun", "%d is luns[%d] of this target already", l.LUN, k)
	} else {
		luns[l.LUN] = j
	}
	switch {
	case l.CDROM != nil && l.Disk != nil:
		ps.add(key, "both a disk and a cdrom; give each a number of its own")
		return
	case l.CDROM != nil:
		return
	case l.Disk == nil:
		ps.add(key, "neither a disk nor a cdrom; say which volume it shows, such as disk: {volume: demo, size: 10GiB}, or make it a drive with cdrom: {}")
		return
	}
	validatePrefetch(ps, key+".disk.prefetch", l.Disk.Prefetch)
	vkey := key + ".disk.volume"
	if err := ValidVolumeName(l.Disk.Volume); err != nil {
		ps.add(vkey, "%v", err)
	} else if use, dup := volumes[l.Disk.Volume]; !dup {
		volumes[l.Disk.Volume] = volumeUse{key, *l.Disk}
	} else if use.disk != *l.Disk {
		ps.add(vkey, "volume %s is declared as %s already, with another image or size, and one volume cannot be two units", l.Disk.Volume, use.key)
	} else {
		ps.add(vkey, "volume %s is %s already; one volume cannot be two units", l.Disk.Volume, use.key)
	}
	if l.Disk.Pin && l.Disk.Image == "" {
		ps.add(key+".disk.pin", "a disk without an image is local anyway; leave the key out")
	}
	if l.Disk.Size == 0 && l.Disk.Image == "" {
		ps.add(key+".disk.size", "missing; a disk without an image needs one, such as 10GiB")
	} else if err := validVolumeSize(l.Disk.Size); err != nil && l.Disk.Size != 0 {
		ps.add(key+".disk.size", "%v", err)
	}
}

// driveUse is where a drive was declared first, what is in it, and which
// targets show it.
type driveUse struct {
	key, media string
	targets    map[string]string
}

// validateDrive checks a drive of a target. Who names no medium leaves that to
// the others that name the same drive.
func validateDrive(ps *Problems, key, iqn string, c CDROMConfig, drives map[string]driveUse) {
	if c.Media != "" {
		if err := ValidImageName(c.Media); err != nil {
			ps.add(key+".media", "%v", err)
		}
	}
	if c.Name == "" {
		return
	}
	if !volumeName.MatchString(c.Name) {
		ps.add(key+".name", "%q is not the name of a drive: letters, digits, '.', '_' and '-', at most 63, a letter or digit first", c.Name)
		return
	}
	use, dup := drives[c.Name]
	if !dup {
		use = driveUse{key: key, targets: map[string]string{}}
	}
	if other, dup := use.targets[iqn]; dup {
		ps.add(key+".name", "drive %s is %s of this target already", c.Name, other)
	}
	if use.media != "" && c.Media != "" && use.media != c.Media {
		ps.add(key+".media", "drive %s is declared as %s already, with %s in it", c.Name, use.key, use.media)
	}
	if use.media == "" && c.Media != "" {
		use.media, use.key = c.Media, key
	}
	use.targets[iqn] = key
	drives[c.Name] = use
}

// initiatorName is more generous than the standard, since the names are other
// people's: Windows puts host names with underscores into them.
var initiatorName = regexp.MustCompile(`^(?i:iqn|eui|naa)\.[^\s[:cntrl:]]+$`)

const maxISCSIName = 223 // bytes, RFC 7143 4.2.7.1

var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidVolumeName tells what is wrong with a volume's name.
func ValidVolumeName(name string) error {
	if name == "" {
		return fmt.Errorf("missing; give the volume a name")
	}
	if !volumeName.MatchString(name) {
		return fmt.Errorf("%q is not a volume name: letters, digits, '.', '_' and '-', at most 63, a letter or digit first", name)
	}
	return nil
}

func validVolumeSize(s Size) error {
	switch {
	case s <= 0:
		return fmt.Errorf("%v is not a size for a disk", s)
	case s%512 != 0:
		return fmt.Errorf("%d bytes is not a multiple of 512", int64(s))
	case s > MaxVolumeSize:
		return fmt.Errorf("%v is more than %v", s, MaxVolumeSize)
	}
	return nil
}

// level returns the level that is written in the configuration.
func (c LogConfig) level() (slog.Level, error) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is none of debug, info, warn, error", c.Level)
}

// unjoin returns the errors that errors.Join has joined.
func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}
