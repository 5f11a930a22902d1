package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Portal is an address to listen on.
type Portal struct {
	// Listen is IP:PORT, [IPv6]:PORT, or an IP alone for port 3260. An
	// unspecified address listens on all: 0.0.0.0 on those of IPv4, [::] on
	// those of IPv6, and on those of IPv4 too if no other portal has the port.
	Listen string `yaml:"listen"`

	// Advertise are the addresses that initiators are told instead, each with
	// a port or for the one that is listened on: IP addresses or host names.
	// Empty: where it listens, or where the initiator came if that is
	// everywhere.
	Advertise []string `yaml:"advertise"`

	// Group is the portal group tag, RFC 7143 4.4.3; 0 stands for 1. It is
	// also the relative target port identifier of all I_T nexuses through
	// the portal.
	Group uint16 `yaml:"group"`
}

// At returns portals of these addresses.
func At(addrs ...string) []Portal {
	portals := make([]Portal, len(addrs))
	for i, a := range addrs {
		portals[i].Listen = a
	}
	return portals
}

// defaultGroup is the portal group of portals that name none.
const defaultGroup = 1

// Tag returns the portal group tag.
func (p Portal) Tag() uint16 {
	if p.Group == 0 {
		return defaultGroup
	}
	return p.Group
}

// checkPortals returns what is wrong with portals.
func checkPortals(portals []Portal) (errs []error) {
	seen := map[netip.AddrPort]string{}
	for _, p := range portals {
		addr, err := ParsePortal(p.Listen)
		if err != nil {
			errs = append(errs, fmt.Errorf("portals: %w", err))
			continue
		}
		for o, text := range seen {
			if Overlap(addr, o) {
				errs = append(errs, fmt.Errorf("portals: %s is within %s", p.Listen, text))
			}
		}
		seen[addr] = p.Listen
		for _, a := range p.Advertise {
			if _, err := Advertised(a, addr.Port()|1); err != nil {
				errs = append(errs, fmt.Errorf("portals: %w", err))
			}
		}
	}
	return errs
}

// ParsePortal reads the address of a portal.
func ParsePortal(s string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), defaultPort), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not IP:PORT, such as 127.0.0.1:3260 or [::1]:3260", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// Overlap tells whether no two portals can have these addresses: they are the
// same, or one is within the other.
func Overlap(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() || a.Port() == 0 || a.Addr().Is4() != b.Addr().Is4() {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

// hostName is what an address can be besides an IP address, RFC 7143 13.8.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?$`)

const maxHostName = 253

// Advertised returns an address as initiators are told it: with the port,
// unless it has one.
func Advertised(s string, port uint16) (string, error) {
	bad := fmt.Errorf("%q is not an address to advertise; write IP, [IPv6] or a host name, and :PORT if it is another one", s)
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return checkAdvertised(netip.AddrPortFrom(ip, port))
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return checkAdvertised(ap)
	}
	host := s
	if h, p, found := strings.Cut(s, ":"); found {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", bad
		}
		host, port = h, uint16(n)
	}
	if len(host) > maxHostName || !hostName.MatchString(host) || strings.Trim(host, "0123456789.") == "" {
		return "", bad
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

func checkAdvertised(a netip.AddrPort) (string, error) {
	switch {
	case a.Addr().IsUnspecified():
		return "", fmt.Errorf("%v is not an address to advertise: nobody can connect to it", a.Addr())
	case a.Port() == 0:
		return "", errors.New("port 0 is not one to advertise: nobody can connect to it")
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()).String(), nil
}

// ParseNetwork reads a network that initiators may come from: an IP address or
// one with the length of its prefix.
func ParseNetwork(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write an IP address or ADDRESS/BITS, such as 192.0.2.7 or 10.0.0.0/8", s)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
