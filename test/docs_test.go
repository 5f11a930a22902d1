package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
)

// The pages that tell of features and of the tests that show them, and how many
// tests they name at least.
var testedPages = map[string]int{"../docs/iscsi.md": 50, "../docs/scsi.md": 30}

// Each test that such a page names is there, and each row of a table that has
// a column for it names one, or says why not.
func TestDocumentedTests(t *testing.T) {
	exists := make(map[string]bool)
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			exists[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for page, least := range testedPages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		named := make(map[string]bool)
		tested := false // the table we are in has a column for tests
		for line := range strings.Lines(string(text)) {
			names := testName.FindAllStringSubmatch(line, -1)
			for _, m := range names {
				if named[m[1]] = true; !exists[m[1]] {
					t.Errorf("%s names %s, which does not exist", page, m[1])
				}
			}
			switch {
			case !strings.HasPrefix(line, "|"):
				tested = false
			case strings.Contains(line, "| shown by |"):
				tested = true
			case tested && !strings.HasPrefix(line, "|---") && len(names) == 0 && !strings.Contains(line, "no test: "):
				t.Errorf("%s: a row without a test: %s", page, line)
			}
		}
		if len(named) < least {
			t.Errorf("%s names %d tests only", page, len(named))
		}
	}
}
