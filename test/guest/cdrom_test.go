//go:build guest

package guest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCDROM has Linux use the drive.
func TestCDROM(t *testing.T) {
	one, two := isoImage(t, "one", 60<<20), isoImage(t, "two", 1<<20)
	info, err := os.Stat(two)
	if err != nil {
		t.Fatal(err)
	}
	// A size that is no multiple of a sector, and of more than 32 bits.
	const size = 5<<30 + 512
	large := isoImage(t, "large", 1<<20)
	if err := os.Truncate(large, size); err != nil {
		t.Fatal(err)
	}
	script(t, "cdrom.sh", Options{
		Config: `
data_dir: ./data
portals: ["` + Portal + `"]
targets:
  - iqn: ` + Target + `
    luns:
      - {lun: 1, cdrom: {media: one.iso}}
`,
		Images: map[string]string{"one.iso": one, "two.iso": two, "large.iso": large},
		Env:    map[string]string{"TWO": fmt.Sprint(info.Size()), "LARGE": fmt.Sprint(size + 2048 - 512)},
	})
}

// isoImage returns an ISO with a label of its name, a file with its name, a
// large file and small ones of random bytes, and SUMS, their checksums.
func isoImage(t *testing.T, name string, large int) string {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("%s: seed %d", name, seed)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	tree := t.TempDir()
	var sums bytes.Buffer
	add := func(file string, content []byte) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, file), content, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  ./%s\n", sha256.Sum256(content), file)
	}
	add("name", []byte(name+"\n"))
	content := make([]byte, large)
	random.Read(content)
	add("large", content)
	for i := range 100 {
		random.Read(content[:i*100])
		add(fmt.Sprintf("d%d/A file with a long name, number %d", i%7, i), content[:i*100])
	}
	if err := os.WriteFile(filepath.Join(tree, "SUMS"), sums.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), name+".iso")
	label := string(bytes.ToUpper([]byte(name)))
	cmd := exec.CommandContext(t.Context(), "xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long", "-V", label, "-o", image, tree)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	return image
}
