package raid

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMakeDir(t *testing.T) {
	root := t.TempDir()
	for _, path := range []string{filepath.Join(root, "a", "b", "c"), filepath.Join(root, "a"), filepath.Join(root, "a", "b", "d")} {
		if err := MakeDir(path); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(filepath.Join(root, "file", "below")); err == nil {
		t.Error("a directory below a file was made")
	}
}
