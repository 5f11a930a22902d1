//go:build guest

package guest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	cutPoints = flag.Int("guest.points", 16, "at how many `points` TestPowerCut cuts the power of ext4, and at half as many that of XFS")
	cutSeed   = flag.Uint64("guest.seed", 0, "of the random `numbers` of TestPowerCut; 0: others each time")
)

// TestPowerCut runs the server in the guest, on a device that records what
// reaches it, and looks at what a cut of the power would have left at many points
// of the record; see the documentation of powercut. A server that breaks a
// promise must be found out.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "powercut")
	build(t, program, "skylun/test/guest/powercut")
	t.Run("ext4", func(t *testing.T) { t.Parallel(); powerCut(t, program, binary, "ext4", *cutPoints, "0") })
	t.Run("xfs", func(t *testing.T) { t.Parallel(); powerCut(t, program, binary, "xfs", *cutPoints/2, "0") })
	for name, dir := range map[string]string{"NoDataSync": "raid", "NoJournalSync": "meta", "NoRedoSync": "node"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forgetful := filepath.Join(t.TempDir(), "skylun")
			build(t, forgetful, "skylun", "-overlay", withoutSync(t, dir))
			powerCut(t, program, forgetful, "ext4", *cutPoints, lost)
		})
	}
}

// lost is the exit status of powercut when something is lost.
const lost = "3"

// powerCut runs powercut with a server, and wants its exit status to be that.
func powerCut(t *testing.T, program, server, fs string, points int, status string) {
	size := map[string]int64{"ext4": 96 << 20, "xfs": 320 << 20}[fs]
	script := fmt.Sprintf("status=0\n"+
		"udevadm control --exit # nobody is to look at the devices\n"+
		"/host/powercut -server /host/skylun -fs %s -points %d %s || status=$?\n"+
		"[ $status = %s ] || fail \"status $status\"\n", fs, points, seedFlag(), status)
	var disks []*os.File
	for _, size := range []int64{size, 1 << 30, size, 96 << 20} { // what powercut wants them for is in its main.go
		d, err := NewDisk(size)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		disks = append(disks, d)
	}
	Run(t, script, Options{
		Alone:   true,
		Timeout: 5*time.Minute + time.Duration(points)*10*time.Second,
		Host:    map[string]string{"powercut": program, "skylun": server},
		Disks:   disks,
	})
}

func seedFlag() string {
	if *cutSeed == 0 {
		return ""
	}
	return fmt.Sprint("-seed ", *cutSeed)
}

// withoutSync returns a file for go build's -overlay that has fdatasync do
// nothing in one package.
func withoutSync(t *testing.T, dir string) string {
	t.Helper()
	source, err := filepath.Abs(filepath.Join("../..", dir))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	replaced, temp := make(map[string]string), t.TempDir()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(string(text), "unix.Fdatasync(", "func(int) error { return nil }(")
		if strings.HasSuffix(file, "_test.go") || changed == string(text) {
			continue
		}
		changed += "\nvar _ = unix.Fdatasync // the import is used\n"
		replaced[file] = filepath.Join(temp, filepath.Base(file))
		if err := os.WriteFile(replaced[file], []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(replaced) == 0 {
		t.Fatalf("no file of %s calls fdatasync", dir)
	}
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(name, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// build builds a program of the module for the guest.
func build(t *testing.T, file, pkg string, flags ...string) {
	t.Helper()
	args := append([]string{"build", "-o", file}, flags...)
	cmd := exec.CommandContext(t.Context(), "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}
