package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
)

// dialFrom connects to a portal from a local address.
func dialFrom(t testing.TB, from, to string) *initiator.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	c := initiator.New(nc)
	t.Cleanup(func() { c.Close() })
	return c
}

// nexusUnit remembers the nexuses it has seen.
type nexusUnit struct {
	fakeUnit
	mu   sync.Mutex
	seen []*lun.Nexus
}

func (u *nexusUnit) Attach(n *lun.Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, n)
}

// RFC 7143 4.4.3, 13.8 and 13.9: portals of several groups.
func TestPortalGroups(t *testing.T) {
	u := &nexusUnit{}
	s := start(t, Config{Portals: []Portal{{Listen: "127.0.0.1:0"}, {Listen: "127.0.0.2:0", Group: 7}, {Listen: "127.0.0.3:0", Group: 7}}}, u)
	tags := []string{"1", "7", "7"}
	var want []string
	for i, p := range s.Portals() {
		want = append(want, p.String()+","+tags[i])
	}
	var conns []*initiator.Conn
	for i, p := range s.Portals()[:2] {
		c, err := initiator.Dial(p.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		keys := mustLogin(t, c)
		if got := keys.Get("TargetPortalGroupTag"); !slices.Equal(got, tags[i:i+1]) {
			t.Errorf("TargetPortalGroupTag=%q on %v", got, p)
		}
		if got, err := c.Discover(""); err != nil || !slices.Equal(got.Get("TargetAddress"), want) {
			t.Errorf("SendTargets: %q, %v; want %q", got, err, want)
		}
		conns = append(conns, c)
	}
	// The same initiator port has a session through each group.
	for _, c := range conns {
		alive(t, c)
	}
	u.mu.Lock()
	if len(u.seen) != 2 || u.seen[0].PortalGroup != 1 || u.seen[1].PortalGroup != 7 {
		t.Errorf("nexuses %+v", u.seen)
	}
	u.mu.Unlock()
	// A session is known in its group only.
	c, err := initiator.Dial(s.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.TSIH = conns[1].TSIH
	if got := loginStatus(t, c); got != pdu.LoginNoSession {
		t.Errorf("session of another group: status %04x", got)
	}
	// Reinstatement by the other portal of the group.
	if c, err = initiator.Dial(s.Portals()[2].String()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mustLogin(t, c)
	closed(t, conns[1])
	alive(t, conns[0])
}

// Addresses that are advertised take the place of those that are listened on.
func TestAdvertise(t *testing.T) {
	s := start(t, Config{Portals: []Portal{
		{Listen: "0.0.0.0:0", Advertise: []string{"192.0.2.1:99", "san.example.com", "2001:db8::1"}, Group: 3},
		{Listen: "127.0.0.1:0"},
	}})
	_, port, _ := net.SplitHostPort(s.addr)
	s.addr = net.JoinHostPort("127.0.0.1", port)
	got, err := s.discover(t).Discover("All")
	want := []string{"192.0.2.1:99,3", "san.example.com:" + port + ",3", "[2001:db8::1]:" + port + ",3", s.Portals()[1].String() + ",1"}
	if err != nil || !slices.Equal(got.Get("TargetAddress"), want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// What is told of a portal depends on how the initiator came.
func TestAdvertised(t *testing.T) {
	bound := func(addr string, both bool, advertise ...string) *portal {
		return &portal{addr: netip.MustParseAddrPort(addr), both: both, group: 1, advertise: advertise}
	}
	v4, v6, dual := bound("0.0.0.0:1", false), bound("[::]:2", false), bound("[::]:3", true)
	for _, c := range []struct {
		local   string
		portals []*portal
		want    string
	}{
		{"192.0.2.1:1", []*portal{v4, v6, dual}, "192.0.2.1:1 192.0.2.1:3"},
		{"[2001:db8::1]:2", []*portal{v4, v6, dual}, "[2001:db8::1]:2 [2001:db8::1]:3"},
		{"[fe80::1%eth0]:2", []*portal{v6}, "[fe80::1]:2"},
		{"[fe80::1%eth0]:4", []*portal{bound("[fe80::1%eth0]:4", false)}, "[fe80::1]:4"},
		{"192.0.2.1:1", []*portal{bound("[fe80::1%eth0]:4", false), bound("127.0.0.1:5", false), bound("[::1]:5", false)}, ""},
		{"127.0.0.1:5", []*portal{bound("127.0.0.1:5", false), bound("192.0.2.1:6", false)}, "127.0.0.1:5 192.0.2.1:6"},
		{"192.0.2.1:1", []*portal{v4, bound("192.0.2.1:1", false), bound("192.0.2.1:9", false)}, "192.0.2.1:1 192.0.2.1:9"},
		{"192.0.2.1:1", []*portal{bound("127.0.0.1:5", false, "198.51.100.1:3260"), bound("[::]:6", false, "san:7")}, "198.51.100.1:3260 san:7"},
	} {
		conn := &conn{srv: &Server{portals: c.portals}, local: netip.MustParseAddrPort(c.local)}
		got := strings.ReplaceAll(strings.Join(conn.advertised(), " "), ",1", "")
		if got != c.want {
			t.Errorf("by %s: %s, want %s", c.local, got, c.want)
		}
	}
}

// startOnOnePort starts a server whose portals have these addresses and the same
// port, one that is free.
func startOnOnePort(t *testing.T, groups map[string]uint16, hosts ...string) (s *server, port string) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		l.Close() // and somebody else may take it
		var portals []Portal
		for _, h := range hosts {
			portals = append(portals, Portal{Listen: net.JoinHostPort(h, port), Group: groups[h]})
		}
		s, err := New(Config{Portals: portals, LogoutTimeout: 10 * time.Millisecond}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		addTarget(t, s, Target{Name: testTarget})
		if err := s.Listen(); err == nil {
			return serve(t, s), port
		} else if !strings.Contains(err.Error(), "in use") {
			t.Fatal(err)
		}
	}
	t.Fatal("found no port that is free for all")
	return nil, ""
}

// All addresses of IPv4 and of IPv6 on one port are two portals.
func TestWildcardsOfBothFamilies(t *testing.T) {
	groups := map[string]uint16{"::": 6}
	for _, hosts := range [][]string{{"0.0.0.0", "::"}, {"::", "0.0.0.0"}, {"127.0.0.1", "::"}} {
		t.Run(fmt.Sprint(hosts), func(t *testing.T) {
			s, port := startOnOnePort(t, groups, hosts...)
			for host, tag := range map[string]string{"127.0.0.1": "1", "::1": "6"} {
				s.addr = net.JoinHostPort(host, port)
				c := s.dial(t)
				if got := mustLogin(t, c).Get("TargetPortalGroupTag"); !slices.Equal(got, []string{tag}) {
					t.Errorf("%s: TargetPortalGroupTag=%q", host, got)
				}
				if got, err := c.Discover(""); err != nil || !slices.Contains(got.Get("TargetAddress"), s.addr+","+tag) {
					t.Errorf("%s: %q, %v", host, got, err)
				}
			}
		})
	}
}

// Portals that cannot be had together are found before any is bound.
func TestPortalsOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true}, {"127.0.0.1:1", "127.0.0.1:2", false}, {"127.0.0.1:0", "127.0.0.1:0", false},
		{"0.0.0.0:1", "127.0.0.1:1", true}, {"127.0.0.1:1", "0.0.0.0:1", true}, {"0.0.0.0:1", "[::]:1", false},
		{"[::]:1", "[::1]:1", true}, {"[::]:1", "127.0.0.1:1", false}, {"[::1]:1", "127.0.0.1:1", false}, {"127.0.0.1", "127.0.0.1:3260", true},
		{"[::ffff:127.0.0.1]:1", "127.0.0.1:1", true},
	} {
		if errs := checkPortals(At(c.a, c.b)); (len(errs) > 0) != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, errs)
		}
	}
}

func TestAdvertisedAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:5", "10.0.0.1:6": "10.0.0.1:6", "::1": "[::1]:5", "[::1]": "[::1]:5", "[::1]:6": "[::1]:6", "fe80::1%eth0": "[fe80::1]:5",
		"host": "host:5", "a-b.example.com:6": "a-b.example.com:6", "::ffff:10.0.0.1": "10.0.0.1:5",
		"": "", "0.0.0.0": "", "[::]:3": "", "10.0.0.1:0": "", "host:0": "", "host:x": "", "host:70000": "", "-a": "", "a_b": "", "a b": "", "a,1": "", "10.0.0.256": "", "a..b": "", "a\x00": "",
	} {
		got, err := Advertised(in, 5)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "10.1.2.3/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "2001:db8::1": "2001:db8::1/128", "2001:db8::/32": "2001:db8::/32",
		"::ffff:10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"": "", "lan": "", "10.0.0.0/33": "", "10.0.0/8": "", "fe80::1%eth0": "",
	} {
		got, err := ParseNetwork(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v; want %q", in, got, err, want)
		}
	}
}

// Initiators from elsewhere are refused, and do not see the target.
func TestNetworks(t *testing.T) {
	s := start(t, Config{Portals: At("127.0.0.1:0")})
	network := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	const near, far = "iqn.2026-11.io.skylun:near", "iqn.2026-11.io.skylun:far"
	addTarget(t, s.Server, Target{Name: near, Networks: network("127.0.0.8/30"), Initiators: []string{testInitiator}})
	addTarget(t, s.Server, Target{Name: far, Networks: append(network("10.0.0.0/8"), network("::/0")...)})
	for from, admitted := range map[string]bool{"127.0.0.1": false, "127.0.0.9": true, "127.0.0.12": false} {
		c := dialFrom(t, from, s.addr)
		_, err := c.Login(initiator.Options{Initiator: testInitiator, Target: near})
		if status := (initiator.StatusError{}); admitted && err != nil || !admitted && (!errors.As(err, &status) || status.Status != pdu.LoginForbidden) {
			t.Errorf("from %s: %v", from, err)
		}
		d := dialFrom(t, from, s.addr)
		if _, err := d.Login(initiator.Options{Initiator: testInitiator}); err != nil {
			t.Fatal(err)
		}
		want := []string{testTarget}
		if admitted {
			want = []string{near, testTarget}
		}
		if got, err := d.Discover("All"); err != nil || !slices.Equal(got.Get("TargetName"), want) {
			t.Errorf("SendTargets from %s: %q, %v; want %q", from, got, err, want)
		}
		if got, err := d.Discover(far); err != nil || len(got) > 0 {
			t.Errorf("SendTargets=%s from %s: %q, %v", far, from, got, err)
		}
	}
}

// IPv4 addresses that arrive over IPv6 sockets are IPv4 addresses, and zones do
// not matter.
func TestNetworksOfAddress(t *testing.T) {
	four := &target{Target: Target{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	six := &target{Target: Target{Networks: []netip.Prefix{netip.MustParsePrefix("fe80::/64"), netip.MustParsePrefix("2001:db8::/32")}}}
	for _, c := range []struct {
		t    *target
		from string
		want bool
	}{
		{four, "10.1.1.1", true}, {four, "::ffff:10.1.1.1", true}, {four, "11.1.1.1", false}, {four, "::1", false},
		{six, "fe80::1%eth0", true}, {six, "2001:db8:1::1", true}, {six, "2001:db9::1", false}, {six, "10.1.1.1", false}, {&target{}, "10.1.1.1", true},
	} {
		if got := c.t.admitsAddress(netip.MustParseAddr(c.from)); got != c.want {
			t.Errorf("%v admits %s: %t", c.t.Networks, c.from, got)
		}
	}
}
