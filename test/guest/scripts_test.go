//go:build guest

package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binary is the server that the tests start: they build it, unless
// binaryVariable names one.
var binary = os.Getenv(binaryVariable)

const binaryVariable = "SKYLUN_TEST_BINARY"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if binary != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "skylun-guest-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "skylun")
		if err := Build(context.Background(), binary); err != nil {
			log.Print(err)
			return 1
		}
		return m.Run()
	}())
}

// script runs one of the scripts, at the same time as others: they wait a lot.
func script(t *testing.T, name string, o Options) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	o.Binary = binary
	Run(t, string(text), o)
}

func TestCut(t *testing.T) { script(t, "cut.sh", Options{}) }

func TestRestart(t *testing.T) {
	for _, signal := range []string{"TERM", "KILL"} {
		t.Run(signal, func(t *testing.T) {
			script(t, "restart.sh", Options{Env: map[string]string{"SIGNAL": signal}})
		})
	}
}

func TestLogin(t *testing.T) { script(t, "login.sh", Options{}) }

func TestSG(t *testing.T) {
	script(t, "sg.sh", Options{Config: Config + "      - {lun: 1, disk: {volume: other, size: 1GiB}}\n"})
}

func TestOffload(t *testing.T) {
	script(t, "offload.sh", Options{Config: Config + "      - {lun: 1, disk: {volume: other, size: 1GiB}}\n"})
}

// manyLUNs is how many the target many has.
const manyLUNs = 64

func TestTransport(t *testing.T) {
	const many = Target + "-many"
	var config strings.Builder
	fmt.Fprintf(&config, `
data_dir: ./data
portals: [%q, %q]
discovery:
  chap: {user: finder, secret_file: finder}
targets:
  - iqn: %s
    chap: {user: alice, secret_file: alice, mutual_user: skylun, mutual_secret_file: skylun}
    luns:
      - {lun: 0, disk: {volume: demo, size: 2GiB}}
  - iqn: %s
    luns:
`, Portal, Second, Target, many)
	for n := range manyLUNs {
		fmt.Fprintf(&config, "      - {lun: %d, disk: {volume: many%d, size: %dMiB}}\n", n, n, 4+n)
	}
	script(t, "transport.sh", Options{
		Config: config.String(),
		Files:  map[string]string{"finder": "what finder knows\n", "alice": "what alice knows\n", "skylun": "what skylun knows\n"},
		Env:    map[string]string{"MANY": many, "COUNT": fmt.Sprint(manyLUNs)},
	})
}

func TestFiles(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) { script(t, "files.sh", Options{Env: map[string]string{"FS": fs}}) })
	}
}

func TestNTFS(t *testing.T) { script(t, "ntfs.sh", Options{}) }

func TestVolumes(t *testing.T) { script(t, "volumes.sh", Options{}) }

func TestOverlay(t *testing.T) {
	config := strings.Replace(Config, "{volume: demo, size: 2GiB}}", `{volume: first, image: files}}
      - {lun: 1, disk: {volume: second, image: files}}`, 1)
	if config == Config {
		t.Fatal("the configuration has no demo disk to replace")
	}
	script(t, "overlay.sh", Options{Config: config, Images: map[string]string{"files": ext4Image(t)}})
}

// ext4Image returns a file that is an ext4 file system with folders of files,
// and SUMS, their checksums.
func ext4Image(t *testing.T) string {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	tree := t.TempDir()
	var sums bytes.Buffer
	for d := range 20 {
		dir := fmt.Sprintf("d%d", d)
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range 50 {
			size := random.IntN(8 << 10)
			if f == 0 {
				size = random.IntN(4 << 20)
			}
			content := make([]byte, size)
			for i := range content {
				content[i] = byte(random.Uint32())
			}
			name := fmt.Sprintf("%s/f%d", dir, f)
			if err := os.WriteFile(filepath.Join(tree, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&sums, "%x  ./%s\n", sha256.Sum256(content), name)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "SUMS"), sums.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "files.img")
	cmd := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-d", tree, image, "256M")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return image
}
