//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// notSupported lists the tests of iscsi-test-cu that do not pass.
const notSupported = "testdata/iscsi-test-cu.txt"

// Every test of libiscsi's suite passes, or is listed as not passing, with how
// it ends and why. A listed test that ends otherwise fails: the list only
// shrinks. Each runs in a process of its own, so that one that hangs or leaves
// a session behind is the only one that suffers.
func TestConformance(t *testing.T) {
	listed := readNotSupported(t, notSupported)
	names := suiteTests(t)
	for name := range listed {
		if !slices.Contains(names, name) {
			t.Errorf("%s lists %s, which iscsi-test-cu does not have", notSupported, name)
		}
	}
	s := newServer(t, newFileStore(t), fmt.Sprintf("volume: disk, size: %d", suiteDisk), "volume: fixed, size: 30MiB, read_only: true")
	s.start()
	for _, name := range names {
		urls := []string{s.url(0)}
		switch {
		case strings.HasPrefix(name, "SCSI.MultipathIO."):
			urls = append(urls, s.url(0))
		case strings.HasPrefix(name, "SCSI.ReadOnly."):
			urls[0] = s.url(1)
		}
		t.Run(name, func(t *testing.T) { conforms(t, listed, name, urls...) })
	}
	s.stop()
	s.check()
}

// suiteDisk is the size of the disk, below 65,536 blocks: with more,
// SCSI.WriteSame16.Unmap writes 32 MiB with one command, whatever the MAXIMUM
// TRANSFER LENGTH is.
const suiteDisk = 30 << 20

// The same on an overlay of which one half is local and the other in the store,
// and by two paths. Run all of it: SCSI.MultipathIO.CompareAndWrite wants a block
// zeroed that only tests before it have zeroed.
func TestConformanceOverlay(t *testing.T) {
	listed := readNotSupported(t, notSupported)
	s := newServer(t, newFileStore(t), "volume: disk, image: base")
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	const one, two = `"127.0.0.1:0"`, `"127.0.0.1:0", "127.0.0.2:0"`
	s.configure(strings.Replace(string(config), one, two, 1))
	s.cli("image", "import", randomFile(t, suiteDisk>>20), "base")
	s.start()
	portals := s.ask().Portals
	if len(portals) != 2 {
		t.Fatalf("portals %q, want two", portals)
	}
	qemuIO(t, s.url(0), "read 15M 15M") // the tests begin where nothing is local
	if c := s.ask().Caches; len(c) != 1 || c[0].Cached < suiteDisk/3 || c[0].Absent < suiteDisk/3 {
		t.Fatalf("caches %+v, want one that is half full", c)
	}
	for _, name := range suiteTests(t) {
		if !strings.HasPrefix(name, "SCSI.ReadOnly.") {
			t.Run(name, func(t *testing.T) {
				conforms(t, listed, name, s.url(0), strings.Replace(s.url(0), portals[0], portals[1], 1))
			})
		}
	}
	s.stop()
	s.check()
}

// conforms runs one test and fails when it ends otherwise than it should.
func conforms(t *testing.T, listed map[string]notSupportedTest, name string, urls ...string) {
	t.Helper()
	verdict, out := runSuiteTest(t, name, urls...)
	want, why := "passed", ""
	if l, ok := listed[name]; ok {
		want, why = l.verdict, l.reason
	}
	switch {
	case verdict == want:
	case verdict == "passed":
		t.Errorf("passes now: take it out of the list (%s)", why)
	default:
		t.Errorf("%s, want %s\n%s", verdict, want, out)
	}
}

// suiteTests returns the names of all tests, FAMILY.SUITE.TEST.
func suiteTests(t *testing.T) (names []string) {
	for line := range strings.Lines(tool(t, "iscsi-test-cu", "--list")) {
		name := strings.TrimSpace(line)
		family, _, _ := strings.Cut(name, ".")
		if (family == "SCSI" || family == "iSCSI") && strings.Count(name, ".") == 2 {
			names = append(names, name)
		}
	}
	if len(names) < 200 {
		t.Fatalf("iscsi-test-cu lists %d tests only", len(names))
	}
	return names
}

var (
	testSummary = regexp.MustCompile(`(?m)^ +tests +(\d+) +(\d+) +(\d+) +(\d+)`) // total, ran, passed, failed
	testOutput  = regexp.MustCompile(`(?s)  Test: \S+ \.\.\.(.*)passed.*Run Summary`)
)

// runSuiteTest runs one test on a disk, of which there is a URL for each path,
// and tells how it ended: passed, failed or
// skipped. A test that finds out that it does not apply prints [SKIPPED] and
// counts as passed in the suite's own summary. So do the suite's preparations,
// before and after the test's output: those say nothing about the test.
func runSuiteTest(t *testing.T, name string, urls ...string) (verdict, out string) {
	t.Helper()
	args := append([]string{"--dataloss", "--allow-sanitize", "--test=" + name}, urls...)
	o := commandWithin(t, 2*time.Minute, "iscsi-test-cu", args...)
	out = o.stdout + o.stderr
	m, said := testSummary.FindStringSubmatch(out), testOutput.FindStringSubmatch(out)
	switch {
	case o.status != 0 || m == nil || m[2] != "1" || m[4] != "0" || said == nil:
		return "failed", out
	case strings.Contains(said[1], "[SKIPPED]"):
		return "skipped", out
	}
	return "passed", out
}

type notSupportedTest struct{ verdict, reason string }

func readNotSupported(t *testing.T, file string) map[string]notSupportedTest {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	listed := make(map[string]notSupportedTest)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != "failed" && f[1] != "skipped" {
			t.Fatalf("%s: want NAME failed|skipped REASON, not %q", file, line)
		}
		if _, dup := listed[f[0]]; dup {
			t.Errorf("%s lists %s twice", file, f[0])
		}
		listed[f[0]] = notSupportedTest{f[1], strings.Join(f[2:], " ")}
	}
	return listed
}
