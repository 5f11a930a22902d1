//go:build guest

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const attachPage = "../../docs/attach.md"

// TestAttach runs the commands of docs/attach.md as they stand there, and after
// those of a section what looks at their outcome: scripts/attach/SECTION.sh.
func TestAttach(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(attachPage)
	if err != nil {
		t.Fatal(err)
	}
	text, err := commands(string(page), "scripts/attach")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{Target, "--login", "mkfs.ext4", "multipath -ll", "--logout"} {
		if !strings.Contains(text, want) {
			t.Fatalf("%s has no command with %s", attachPage, want)
		}
	}
	Run(t, "start_iscsid\n"+text, Options{Binary: binary})
}

var slug = regexp.MustCompile(`[^a-z0-9]+`)

// commands returns a script of all blocks of a page that are marked sh, and of
// the files in checks that are named after its sections.
func commands(page, checks string) (string, error) {
	var script strings.Builder
	section, block, used := "", false, 0
	end := func() error {
		name := strings.Trim(slug.ReplaceAllString(strings.ToLower(section), "-"), "-")
		check, err := os.ReadFile(filepath.Join(checks, name+".sh"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		used++
		script.Write(check)
		return err
	}
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, "```"):
			block = strings.TrimSpace(line) == "```sh"
		case block:
			script.WriteString(line)
		case strings.HasPrefix(line, "## "):
			if err := end(); err != nil {
				return "", err
			}
			section = strings.TrimSpace(line[3:])
			fmt.Fprintf(&script, "step '%s'\n", section)
		}
	}
	if err := end(); err != nil {
		return "", err
	}
	if all, _ := filepath.Glob(filepath.Join(checks, "*.sh")); used != len(all) {
		return "", fmt.Errorf("%d of %d files in %s belong to a section", used, len(all), checks)
	}
	return script.String(), nil
}
