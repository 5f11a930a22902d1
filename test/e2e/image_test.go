//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const (
	imageSize  = 160 << 20
	imageFiles = 3000
)

var ext4 = sync.OnceValues(makeExt4)

// ext4Image returns an ext4 file system with a few thousand files and, like
// every real disk, room without any. Tests must not change it.
func ext4Image(t *testing.T) string {
	t.Helper()
	name, err := ext4()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func makeExt4() (string, error) {
	tree, image := filepath.Join(scratch, "tree"), filepath.Join(scratch, "ext4.img")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range imageFiles {
		dir := filepath.Join(tree, fmt.Sprintf("d%d/e%d", i%7, i%83))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		name := filepath.Join(dir, fmt.Sprintf("file-%d", i))
		data := make([]byte, rng.IntN(50_000)) // no multiple of anything
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return "", err
		}
		if i%10 == 0 {
			if err := os.Symlink(name, name+".link"); err != nil {
				return "", err
			}
		}
	}
	out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", tree, image, fmt.Sprintf("%dk", imageSize>>10)).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mke2fs: %w: %s", err, out)
	}
	return image, os.RemoveAll(tree)
}

// patternImage makes a file in which every byte of the i-th MiB is pattern+i.
func patternImage(t *testing.T, mib int, pattern byte) string {
	t.Helper()
	data := make([]byte, mib<<20)
	for i := range data {
		data[i] = pattern + byte(i>>20)
	}
	name := filepath.Join(t.TempDir(), "pattern.img")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
