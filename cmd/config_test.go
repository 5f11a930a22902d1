package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"skylun/node"
)

// writeConfig writes a configuration into a new directory and returns its
// path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestShippedConfig loads the file that "go run . serve" uses, and sees that
// it says nothing else than the defaults.
func TestShippedConfig(t *testing.T) {
	s, err := loadConfig("../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	want := node.DefaultConfig()
	want.Targets = []node.TargetConfig{{
		IQN:        "iqn.2026-11.io.skylun:demo",
		Initiators: []string{},
		LUNs: []node.LUNConfig{
			{LUN: 0, Disk: &node.DiskConfig{Volume: "demo", Size: 10 << 30}},
			{LUN: 1, CDROM: &node.CDROMConfig{}},
		},
	}}
	if err := want.Resolve(root); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.Config, want) {
		t.Errorf("config.yaml:\n got %+v\nwant %+v", s.Config, want)
	}
	if want.Blobstore.URL != "file:"+filepath.Join(root, "data/blobs") || want.Local.Members[0].Path != filepath.Join(root, "data/local") {
		t.Errorf("defaults: store %s, members %v", want.Blobstore.URL, want.Local.Members)
	}
}

func TestConfigValues(t *testing.T) {
	t.Setenv("SKYLUN_NODE", "from-env")
	t.Setenv("SKYLUN_PORTALS", "127.0.0.1:1, [::1]:2")
	t.Setenv("SKYLUN_BLOBSTORE_TIMEOUT", "7s")
	t.Setenv("SKYLUN_DISCOVERY_CHAP_USER", "finder")
	t.Setenv("SKYLUN_DATA_DIR", "") // empty is unset
	path := writeConfig(t, `
node: "2026-01-02"
data_dir: d
log: {level: debug, format: json}
blobstore: {url: "https://acct.blob.core.windows.net/disks", sas_token_file: sas, timeout: 1s}
local: {members: [/abs/member]}
cache: {prefetch: off}
admin:
discovery: {chap: {user: f, secret_file: secret/f}}
portals: ["127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"]
targets:
  - iqn: iqn.2026-11.io.skylun:a
    initiators: [iqn.1991-05.com.microsoft:WIN_1]
    chap: {user: u, secret_file: secret/u, users: [{user: v, secret_file: /v, mutual_user: w, mutual_secret_file: w}], algorithms: [SHA-256]}
    luns: [{lun: 7, disk: {volume: "007", image: 2026-01-02, size: 1.5GiB, read_only: true}}]
`)
	s, err := loadConfig(path, func(c *node.Config) { c.Log.Level = "error" })
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"node", s.Node, "from-env"},
		{"data_dir", s.DataDir, filepath.Join(dir, "d")},
		{"log.level", s.Log.Level, "error"},
		{"log.format", s.Log.Format, "json"},
		{"sas_token_file", s.Blobstore.SASTokenFile, filepath.Join(dir, "sas")},
		{"timeout", s.Blobstore.Timeout.String(), "7s"},
		{"members", fmt.Sprint(s.Local.Members), "[/abs/member]"},
		{"portals", fmt.Sprint(s.Portals), "[{127.0.0.1:1 [] 0} {[::1]:2 [] 0}]"},
		{"initiators", fmt.Sprint(s.Targets[0].Initiators), "[iqn.1991-05.com.microsoft:WIN_1]"},
		{"chap", fmt.Sprint(s.Targets[0].Chap), fmt.Sprintf("{u %s   [{v /v w %s}] [SHA-256]}", filepath.Join(dir, "secret/u"), filepath.Join(dir, "w"))},
		{"discovery", fmt.Sprint(s.Discovery.Chap), fmt.Sprintf("{finder %s   [] []}", filepath.Join(dir, "secret/f"))},
		{"lun", s.Targets[0].LUNs[0].LUN, 7},
		{"disk", *s.Targets[0].LUNs[0].Disk, node.DiskConfig{Volume: "007", Image: "2026-01-02", Size: 3 << 29, ReadOnly: true}},
	} {
		if c.got != c.want {
			t.Errorf("%s = %v, want %v", c.what, c.got, c.want)
		}
	}
}

// Portals are texts, or keys and values, or both.
func TestPortals(t *testing.T) {
	s, err := loadConfig(writeConfig(t, `
portals:
- 10.0.0.1
- {listen: "[::]:3261", advertise: [san.example, "[2001:db8::1]:9"], group: 2}
targets:
- iqn: iqn.2026-11.io.skylun:a
  networks: [10.0.0.0/8, 2001:db8::/32, 192.0.2.7]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []node.PortalConfig{{Listen: "10.0.0.1"}, {Listen: "[::]:3261", Advertise: []string{"san.example", "[2001:db8::1]:9"}, Group: 2}}
	if !reflect.DeepEqual(s.Portals, want) {
		t.Errorf("portals %+v, want %+v", s.Portals, want)
	}
	if got := fmt.Sprint(s.Targets[0].Networks); got != "[10.0.0.0/8 2001:db8::/32 192.0.2.7]" {
		t.Errorf("networks %s", got)
	}
}

// TestEveryKey sets each key of the configuration by the environment, so that
// none is forgotten there.
func TestEveryKey(t *testing.T) {
	if v, ok := os.LookupEnv("SKYLUN_TEST_AZURITE"); ok { // of test/run
		t.Setenv("SKYLUN_TEST_AZURITE", v) // put it back at the end
		os.Unsetenv("SKYLUN_TEST_AZURITE")
	}
	for _, name := range []string{
		"SKYLUN_NODE", "SKYLUN_DATA_DIR", "SKYLUN_LOG_LEVEL", "SKYLUN_LOG_FORMAT", "SKYLUN_BLOBSTORE_URL",
		"SKYLUN_BLOBSTORE_CONNECTION_STRING_FILE", "SKYLUN_BLOBSTORE_SAS_TOKEN_FILE", "SKYLUN_BLOBSTORE_ACCOUNT_KEY_FILE",
		"SKYLUN_LOCAL_MEMBERS", "SKYLUN_CACHE_PREFETCH", "SKYLUN_CACHE_PREFETCH_RATE", "SKYLUN_CACHE_PREFETCH_HOURS", "SKYLUN_PORTALS", "SKYLUN_ADMIN_LISTEN",
		"SKYLUN_DISCOVERY_CHAP_ALGORITHMS",
		"SKYLUN_LIMITS_SESSIONS", "SKYLUN_LIMITS_SESSIONS_PER_SOURCE", "SKYLUN_LIMITS_LOGINS", "SKYLUN_LIMITS_LOGINS_PER_SOURCE",
		"SKYLUN_LIMITS_LOGIN_TIMEOUT", "SKYLUN_LIMITS_PING_INTERVAL", "SKYLUN_LIMITS_PING_TIMEOUT", "SKYLUN_LIMITS_BUFFERS",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "a@b c") // wrong for most
			_, err := loadConfig(writeConfig(t, ""))
			if err != nil && !strings.Contains(err.Error(), name+" (environment): ") {
				t.Errorf("%v, want an error that names %s", err, name)
			}
			if stray := strayEnv(); len(stray) > 0 {
				t.Errorf("taken for a mistake: %v", stray)
			}
		})
	}
	t.Setenv("SKYLUN_BLOBSTORE_URI", "x")
	if stray := strayEnv(); len(stray) != 1 || !strings.Contains(stray[0], "did you mean SKYLUN_BLOBSTORE_URL?") {
		t.Errorf("strayEnv: %v", stray)
	}
}

// TestBadConfig has one wrong thing in each file and wants exactly one line,
// which names the key and its line.
func TestBadConfig(t *testing.T) {
	disk := func(d string) string {
		return "targets:\n- iqn: iqn.2026-11.io.skylun:a\n  luns:\n  - lun: 0\n    disk: " + d + "\n"
	}
	target := func(rest string) string {
		return "targets:\n- iqn: iqn.2026-11.io.skylun:a\n" + rest
	}
	for _, c := range []struct {
		name, text, want string
	}{
		{"unknown key", "log: {levle: info}", "1: log.levle: unknown key; did you mean level?"},
		{"unknown key at the top", "\nportal: []", "2: portal: unknown key; did you mean portals?"},
		{"unknown key far away", "zebra: 1", "1: zebra: unknown key; known here: node, data_dir,"},
		{"unknown key in a disk", disk("{volume: v, size: 1GiB, sise: 2}"), "5: targets[0].luns[0].disk.sise: unknown key; did you mean size?"},
		{"key in capitals", "Portals: []", "1: Portals: unknown key; did you mean portals?"},
		{"a secret in the file", "blobstore: {account_key: abc}", "1: blobstore.account_key: unknown key; did you mean account_key_file?"},
		{"key twice", "node: a\nnode: b", "1: node: given twice, in lines 1 and 2"},
		{"no keys", "- 1", "file: want keys and values (node, "},
		{"text for a list", "portals: 127.0.0.1:3260", `1: portals: want a list, not "127.0.0.1:3260"`},
		{"list for a text", "node: [a]", "1: node: want a text, not a list"},
		{"text for keys", "log: info", `1: log: want keys and values (level, format), not "info"`},
		{"number", target("  luns: [{lun: one, disk: {volume: v, size: 1GiB}}]"), `3: targets[0].luns[0].lun: "one" is not a whole number`},
		{"fraction", target("  luns: [{lun: 1.5, disk: {volume: v, size: 1GiB}}]"), `3: targets[0].luns[0].lun: "1.5" is not a whole number`},
		{"duration", "blobstore: {timeout: soon}", `1: blobstore.timeout: "soon" is not a duration such as 20s`},
		{"duration without unit", "blobstore: {timeout: 5}", `1: blobstore.timeout: "5" is not a duration such as 20s`},
		{"size", disk("{volume: v, size: 10GB}"), `5: targets[0].luns[0].disk.size: "10GB" is not a size: unit "GB" is unknown; write it like 10GiB`},
		{"no size", disk("{volume: v}"), "5: targets[0].luns[0].disk.size: missing"},
		{"odd size", disk("{volume: v, size: 1000}"), "5: targets[0].luns[0].disk.size: 1000 bytes is not a multiple of 512"},
		{"huge size", disk("{volume: v, size: 100TiB}"), "5: targets[0].luns[0].disk.size: 100TiB is more than"},
		{"negative size", disk("{volume: v, size: -1}"), `5: targets[0].luns[0].disk.size: "-1" is not a size`},
		{"no volume", disk("{size: 1GiB}"), "5: targets[0].luns[0].disk.volume: missing"},
		{"volume name", disk("{volume: a/b, size: 1GiB}"), `5: targets[0].luns[0].disk.volume: "a/b" is not a volume name`},
		{"iqn", "targets: [{iqn: disk1}]", `1: targets[0].iqn: iSCSI name "disk1": starts with none of`},
		{"iqn in capitals", "targets: [{iqn: iqn.2026-11.io.skylun:Demo}]", `1: targets[0].iqn: iSCSI name`},
		{"no iqn", "targets: [{luns: []}]", "1: targets[0].iqn: missing"},
		{"iqn twice", "targets:\n- iqn: iqn.2026-11.io.skylun:a\n- iqn: iqn.2026-11.io.skylun:a", "3: targets[1].iqn: iqn.2026-11.io.skylun:a is declared as targets[0] already"},
		{"initiator", target("  initiators: [host1]"), `3: targets[0].initiators[0]: "host1" is not the name of an initiator`},
		{"chap without a user", target("  chap: {secret_file: s}"), "3: targets[0].chap.user: missing"},
		{"chap without a secret", target("  chap: {user: u}"), "3: targets[0].chap.secret_file: missing"},
		{"a secret as text", target("  chap: {user: u, secret: s}"), "3: targets[0].chap.secret: unknown key; did you mean secret_file?"},
		{"mutual chap without a secret", target("  chap: {user: u, secret_file: s, mutual_user: m}"), "3: targets[0].chap.mutual_secret_file: missing"},
		{"mutual chap without a user", target("  chap: {user: u, secret_file: s, mutual_secret_file: m}"), "3: targets[0].chap.mutual_user: missing"},
		{"chap user twice", target("  chap:\n    user: u\n    secret_file: s\n    users:\n    - {user: u, secret_file: s}"), "7: targets[0].chap.users[0].user: u is targets[0].chap.user already"},
		{"chap user without a secret", target("  chap: {users: [{user: u}]}"), "3: targets[0].chap.users[0].secret_file: missing"},
		{"chap algorithm", target("  chap: {user: u, secret_file: s, algorithms: [MD4]}"), `3: targets[0].chap.algorithms[0]: "MD4" is none of SHA3-256, SHA-256, SHA1, MD5`},
		{"chap algorithm twice", target("  chap: {user: u, secret_file: s, algorithms: [MD5, md5]}"), "3: targets[0].chap.algorithms[1]: MD5 is given twice"},
		{"chap algorithms for nobody", "discovery: {chap: {algorithms: [SHA1]}}", "1: discovery.chap.user: missing"},
		{"chap of discovery", "discovery: {chap: {user: u}}", "1: discovery.chap.secret_file: missing"},
		{"lun too large", target("  luns: [{lun: 256, disk: {volume: v, size: 1GiB}}]"), "3: targets[0].luns[0].lun: 256 is not between 0 and 255"},
		{"lun twice", target("  luns:\n  - {lun: 1, disk: {volume: v, size: 1GiB}}\n  - {lun: 1, disk: {volume: w, size: 1GiB}}"), "5: targets[0].luns[1].lun: 1 is luns[0] of this target already"},
		{"volume twice", target("  luns:\n  - {lun: 1, disk: {volume: v, size: 1GiB}}\n  - {lun: 2, disk: {volume: v, size: 1GiB}}"), "5: targets[0].luns[1].disk.volume: volume v is targets[0].luns[0] already"},
		{"volume twice and different", target("  luns:\n  - {lun: 1, disk: {volume: v, size: 1GiB}}\n  - {lun: 2, disk: {volume: v, size: 2GiB}}"), "5: targets[0].luns[1].disk.volume: volume v is declared as targets[0].luns[0] already, with another image or size"},
		{"neither disk nor drive", target("  luns: [{lun: 1}]"), "3: targets[0].luns[0]: neither a disk nor a cdrom"},
		{"disk and drive", target("  luns: [{lun: 1, cdrom: {}, disk: {volume: v, size: 1GiB}}]"), "3: targets[0].luns[0]: both a disk and a cdrom"},
		{"drive name", target("  luns: [{lun: 1, cdrom: {name: a/b}}]"), `3: targets[0].luns[0].cdrom.name: "a/b" is not the name of a drive`},
		{"drive twice", target("  luns:\n  - {lun: 1, cdrom: {name: d}}\n  - {lun: 2, cdrom: {name: d}}"), "5: targets[0].luns[1].cdrom.name: drive d is targets[0].luns[0].cdrom of this target already"},
		{"media", target("  luns: [{lun: 1, cdrom: {media: ../x}}]"), "3: targets[0].luns[0].cdrom.media: "},
		{"drive with different media", target("  luns: [{lun: 1, cdrom: {name: d, media: a}}]\n- iqn: iqn.2026-11.io.skylun:u\n  luns: [{lun: 1, cdrom: {name: d, media: b}}]"), "5: targets[1].luns[0].cdrom.media: drive d is declared as targets[0].luns[0].cdrom already, with a in it"},
		{"portal", `portals: ["localhost:3260"]`, `1: portals[0]: "localhost:3260" is not IP:PORT`},
		{"port", `portals: ["127.0.0.1:99999"]`, `1: portals[0]: "127.0.0.1:99999" is not IP:PORT`},
		{"portal twice", `portals: ["127.0.0.1", "127.0.0.1:3260"]`, "1: portals[1]: 127.0.0.1:3260 is portals[0] (127.0.0.1) already"},
		{"portal within another", `portals: ["0.0.0.0:1", "127.0.0.1:1"]`, "1: portals[1]: 127.0.0.1:1 is portals[0] (0.0.0.0:1) already"},
		{"portal without an address", `portals: [{group: 2}]`, "1: portals[0].listen: missing"},
		{"portal group", `portals: [{listen: 127.0.0.1, group: 65536}]`, "1: portals[0].group: 65536 is not between 1 and 65535"},
		{"portal key", `portals: [{listen: 127.0.0.1, advertize: []}]`, "1: portals[0].advertize: unknown key; did you mean advertise?"},
		{"advertised", "portals:\n- 127.0.0.2\n- listen: 127.0.0.1\n  advertise: [san.example, 'san:port']", `4: portals[1].advertise[1]: "san:port" is not an address to advertise`},
		{"advertised wildcard", "portals: [{listen: 127.0.0.1, advertise: [0.0.0.0]}]", "1: portals[0].advertise[0]: 0.0.0.0 is not an address to advertise"},
		{"limit", "limits: {sessions: -1}", "1: limits.sessions: -1 is not between 1 and"},
		{"limit of a source", "limits: {logins: 10, logins_per_source: 11}", "1: limits.logins_per_source: 11 is more than limits.logins, 10"},
		{"interval of pings", "limits: {ping_interval: 1d}", "1: limits.ping_interval: "},
		{"limit of pings", "limits: {ping_timeout: 2h}", "1: limits.ping_timeout: 2h0m0s is not between 1s and 1h"},
		{"buffers", "limits: {buffers: 1KiB}", "1: limits.buffers: 1KiB is not between 1MiB and 1TiB"},
		{"limit of time", "limits: {login_timeout: 1ms}", "1: limits.login_timeout: 1ms is not between 1s and 1h"},
		{"network", target("  networks: [10.0.0.0/8, lan]"), `3: targets[0].networks[1]: "lan" is not a network`},
		{"no portals", "portals: []", "1: portals: empty"},
		{"log level", "log: {level: loud}", `1: log.level: "loud" is none of debug, info, warn, error`},
		{"log format", "log: {format: xml}", `1: log.format: "xml" is neither text nor json`},
		{"store", "blobstore: {url: s3://bucket}", `1: blobstore.url: "s3://bucket" is neither a directory nor a container`},
		{"two credentials", "blobstore: {url: https://a.blob.core.windows.net/disks, sas_token_file: a, account_key_file: b}", "1: blobstore.account_key_file: only one of"},
		{"data_dir", "data_dir: " + strings.Repeat("/long", 25), "1: data_dir: the socket /long"},
		{"member is a file", "local: {members: [config.yaml]}", "1: local.members[0]: "},
		{"member twice", "local: {members: [a, {path: a}]}", "1: local.members[1]: "},
		{"empty member", "local: {members: [{weight: 2}]}", "1: local.members[0]: empty"},
		{"two ways to name a member", "local: {members: [{path: a, nbd: 'unix:b'}]}", "1: local.members[0]: both"},
		{"NBD over TCP", "local: {members: [{nbd: 'tcp:b'}]}", "1: local.members[0].nbd: "},
		{"weight", "local: {members: [{path: a, weight: 1000}]}", "1: local.members[0].weight: 1000 is not between 1 and 256"},
		{"allocation", "local: {members: [{path: /dev/x, allocate: lazily}]}", `1: local.members[0].allocate: "lazily" is neither identical nor chunks`},
		{"allocation of a directory", "local: {members: [{path: /, allocate: chunks}]}", "1: local.members[0].allocate: / is a directory"},
		{"character device", "local: {members: [/dev/null]}", "1: local.members[0]: /dev/null is neither a directory nor"},
		{"stripe size", "local: {stripe_size: 100KiB}", "1: local.stripe_size: 100KiB is not a power of two"},

		{"cache size", "cache: {max_size: 1MiB}", "1: cache.max_size: 1MiB is less than 16MiB"},
		{"negative cache size", "cache: {max_size: -1}", `1: cache.max_size: "-1" is not a size`},
		{"pin of a blank disk", disk("{volume: v, size: 1GiB, pin: true}"), "5: targets[0].luns[0].disk.pin: a disk without an image"},

		// Keys of features that are to come.
		{"prefetch of a volume", disk("{volume: v, size: 1GiB, prefetch: never}"), `5: targets[0].luns[0].disk.prefetch: "never" is none of off, readahead, idle, full`},
		{"prefetch hours", "cache: {prefetch_hours: 22-6}", `1: cache.prefetch_hours: "22-6" is no span of the day; write 22:00-06:00`},
		{"prefetch rate", "cache: {prefetch_rate: 512B}", "1: cache.prefetch_rate: "},
		{"prefetch of nothing", "cache: {prefetch: alot}", `1: cache.prefetch: "alot" is none of off, readahead, idle, full`},
		{"admin.listen", "admin: {listen: '127.0.0.1:8260'}", "1: admin.listen: not supported yet"},

		{"syntax", "a: [", "line 1: "},
		{"two documents", "node: a\n---\nnode: b", "more than one YAML document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeConfig(t, c.text)
			_, err := loadConfig(path)
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.As(err, new(usageError)) {
				t.Errorf("%v is not a usage error", err)
			}
			got := err.Error()
			if strings.Contains(got, "\n") {
				t.Errorf("more than one line:\n%s", got)
			}
			got = strings.TrimPrefix(strings.TrimPrefix(got, path+":"), " ")
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("\n got %s\nwant %s...", got, c.want)
			}
		})
	}
}

// TestAllProblemsAtOnce wants every problem of a file, in the order of its
// lines.
func TestAllProblemsAtOnce(t *testing.T) {
	path := writeConfig(t, `portals: [here]
log: {level: loud, colour: yes}
targets:
- iqn: nonsense
  luns:
  - {lun: 300, disk: {volume: v}}
  - {lun: 1, disk: {volume: w, sise: 1GiB}}
  - {lun: 2, dsik: {volume: x}}
  - {lun: 3, disk: {volume: y, size: 1GB}}
  - {lun: 4, cdrom: {media: ../x}}
`)
	_, err := loadConfig(path)
	if err == nil {
		t.Fatal("accepted")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		key, _, _ := strings.Cut(strings.TrimPrefix(line, path+":"), ": ")
		text, _, _ := strings.Cut(strings.TrimPrefix(line, path+":"+key+": "), ": ")
		got = append(got, key+" "+text)
	}
	want := []string{
		"1 portals[0]", "2 log.colour", "2 log.level", "4 targets[0].iqn",
		"6 targets[0].luns[0].lun", "6 targets[0].luns[0].disk.size",
		"7 targets[0].luns[1].disk.sise", "8 targets[0].luns[2].dsik", "9 targets[0].luns[3].disk.size", "10 targets[0].luns[4].cdrom.media",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q\n%v", got, want, err)
	}
}

func TestMissingConfig(t *testing.T) {
	_, err := loadConfig(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), "none.yaml does not exist; name another with -c") {
		t.Errorf("%v", err)
	}
}
