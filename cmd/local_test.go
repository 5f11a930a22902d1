package cmd

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"skylun/plan"
)

func TestPlanCommand(t *testing.T) {
	c := newCLI(t, "") // it needs no configuration
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return c.path(name)
	}
	disks := write("disks.yaml", `
catalogue: mine
date: "2026-01-02"
currency: EUR
kinds:
  - {name: small, size_gib: 1024, iops: 1000, mb_per_s: 100, price: 12}
  - {name: big, size_gib: 3072, iops: 3000, mb_per_s: 300, price: 30}
  - {name: nvme, size_gib: 1024, iops: 500000, mb_per_s: 3000, price: 1, ephemeral: true, local: true}
`)
	c.want([]string{"2 x big 6 TiB 6000 600MB/s EUR 60.00 size, 50%", "4 x small 4 TiB 4000 400MB/s EUR 48.00", "mine of 2026-01-02",
		"local: members: - /mnt/disk1 # small - /mnt/disk2 # small"},
		"local", "plan", "--size", "4TiB", "--throughput", "400MB/s", "--catalogue", disks)
	c.want([]string{"1 x big + 1 x small 4 TiB 4000 400MB/s EUR 42.00 size, 0%", "- {path: /mnt/disk1, weight: 3} # big - {path: /mnt/disk2, weight: 1} # small"},
		"local", "plan", "--size", "4TiB", "--iops", "4000", "--throughput", "400MB/s", "--catalogue", disks, "--mixed")
	c.want([]string{"4 x nvme"}, "local", "plan", "--size", "4TiB", "--catalogue", disks, "--ephemeral")
	c.refuse(1, "no set of up to 16 disks does it; nearest is 16 x big with 48 TiB, 48000 IOPS and 4800MB/s for EUR 480.00 a month, 48% of what is asked for; it can be done with --max-members 34",
		"local", "plan", "--size", "4TiB", "--iops", "100000", "--catalogue", disks)
	c.refuse(1, "the machine allows no more", "local", "plan", "--size", "4TiB", "--iops", "4000", "--node-iops", "2000", "--catalogue", disks)
	c.refuse(1, "--ephemeral", "local", "plan", "--size", "4TiB", "--kinds", "nvme", "--catalogue", disks)

	out, stderr, status := c.run("local", "plan", "--size", "4TiB", "--iops", "4000", "--catalogue", disks, "--mixed", "-o", "json")
	var r planResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 || !r.Exact || len(r.Plans) < 2 || r.Plans[0].Price != 42 || r.Plans[0].Members[0].Weight != 3 ||
		r.Catalogue.Currency != "EUR" || r.Plans[0].IOPS != 4000 || !strings.HasPrefix(r.Plans[0].Config, "local:\n  members:\n") {
		t.Errorf("%+v, %v, exit status %d %s", r, err, status, stderr)
	}
	// What is to be pasted is a configuration.
	if err := os.WriteFile(c.path("pasted.yaml"), []byte(r.Plans[0].Config+"portals: [\"127.0.0.1:0\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pasted, err := loadConfig(c.path("pasted.yaml"))
	if err != nil || len(pasted.Local.Members) != 2 || pasted.Local.Members[0].Path != "/mnt/disk1" || pasted.Local.Members[0].Weight != 3 || pasted.Local.Members[1].Weight != 1 {
		t.Errorf("%+v, %v", pasted, err)
	}
	c.want([]string{"THE PRICES ARE EXAMPLES"}, "local", "plan", "--size", "4TiB", "--iops", "20000", "--throughput", "800MB/s")

	c.refuse(2, "--size", "local", "plan")
	c.refuse(2, `"8" is not a throughput`, "local", "plan", "--size", "4TiB", "--throughput", "8")
	c.refuse(2, "no kind in", "local", "plan", "--size", "4TiB", "--kinds", "floppy*")
	c.refuse(2, "not a pattern", "local", "plan", "--size", "4TiB", "--kinds", "[")
	c.refuse(2, "1 to 64 members", "local", "plan", "--size", "4TiB", "--max-members", "65")
	c.refuse(2, "want 1 or more", "local", "plan", "--size", "4TiB", "--max-members", "0")
	c.refuse(2, "no such file", "local", "plan", "--size", "4TiB", "--catalogue", c.path("none"))
	c.refuse(2, "bad.yaml: kind \"a\": iops", "local", "plan", "--size", "4TiB", "--catalogue", write("bad.yaml", "kinds: [{name: a, size_gib: 1, iops: 0, mb_per_s: 1}]"))
}

// What "local catalogue" prints is a catalogue.
func TestCatalogueCommand(t *testing.T) {
	c := newCLI(t, "")
	out, stderr, status := c.run("local", "catalogue")
	if status != 0 || stderr != "" || out != string(plan.Example()) {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if err := os.WriteFile(c.path("copy.yaml"), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	c.want([]string{"standard-hdd-s50"}, "local", "plan", "--size", "4TiB", "--catalogue", c.path("copy.yaml"))
	c.want([]string{`"region": "eastus"`}, "local", "catalogue", "-o", "json")
}

// What "local bench" prints can be put into a catalogue.
func TestBenchCommand(t *testing.T) {
	c := newCLI(t, "")
	dir := t.TempDir()
	out, stderr, status := c.run("local", "bench", dir, "--time", "200ms", "--space", "16MiB")
	if status != 0 {
		t.Fatalf("exit status %d, %s", status, stderr)
	}
	k, err := plan.Parse([]byte("catalogue: mine\nkinds:\n" + out))
	if err != nil || len(k.Kinds) != 1 || k.Kinds[0].IOPS < 1 || k.Kinds[0].SizeGiB < 1 || k.Kinds[0].LatencyMS <= 0 || math.IsNaN(k.Kinds[0].MBPerS) {
		t.Errorf("%v of\n%s", err, out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v is left behind, %v", entries, err)
	}
	full := c.path("full")
	if err := os.WriteFile(full, []byte(strings.Repeat("x", 32<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.refuse(1, "is not empty", "local", "bench", full, "--time", "200ms", "--space", "16MiB")
	c.refuse(1, "no such file", "local", "bench", c.path("none"))
	c.refuse(2, `"1G" is not a size`, "local", "bench", dir, "--space", "1G")
}

func TestRates(t *testing.T) {
	for text, want := range map[string]int64{"800MB/s": 800e6, "1.5GB/s": 1.5e9, "60MiB/s": 60 << 20, "0MB/s": 0, "2 KB/s": 2000} {
		var f rateFlag
		if err := f.Set(text); err != nil || int64(f) != want {
			t.Errorf("%q is %d, %v, want %d", text, int64(f), err, want)
		}
	}
	for _, text := range []string{"", "800", "800MB", "MB/s", "-1MB/s", "NaNMB/s", "1e300GB/s", "x MB/s"} {
		var f rateFlag
		if err := f.Set(text); err == nil {
			t.Errorf("%q is accepted as %d", text, int64(f))
		}
	}
}

func TestRemoveCommand(t *testing.T) {
	c := newCLI(t, "data_dir: d\nlocal: {members: [a, b]}\n")
	c.want(nil, "volume", "create", "v", "--size", "8MiB")
	t.Chdir(c.dir)
	for _, member := range []string{"b", c.path("b")} { // again is harmless
		c.want([]string{c.path("b") + " is leaving: nothing is on it"}, "local", "remove", member)
	}
	c.refuse(1, "no member "+c.path("c"), "local", "remove", c.path("c"))
	c.refuse(1, c.path("a")+" is the last one that stays", "local", "remove", c.path("a"))
	c.want([]string{"is leaving"}, "local", "rebalance")
	out, stderr, status := c.run("local", "remove", c.path("b"), "--undo")
	if status != 0 || strings.Contains(out, "leaving") {
		t.Errorf("exit status %d, %s\n%s", status, stderr, out)
	}
	c.want(nil, "local", "rebalance")
	c.refuse(2, "accepts 1 arg", "local", "remove")
}
