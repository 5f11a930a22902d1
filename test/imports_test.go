package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "skylun"

// layers says which of our packages a package may import. An empty list means
// none. A package that is not listed may not exist.
var layers = []struct {
	pkg string
	may []string
	why string
}{
	{"block", nil, "it is the contract between the layers, below all of them"},
	{"meta", nil, "it stores what it is given and knows no devices"},
	{"blobstore", []string{"block", "raid/stripe"}, "an image is a block.Reader, whoever reads it; one may be striped over several blobs"},
	{"raid", []string{"block", "raid/nbd", "raid/stripe"}, "members are files, whatever they hold"},
	{"raid/nbd", nil, "a client speaks its protocol, whatever is read and written"},
	{"raid/stripe", nil, "pure maths, the same for members and for blobs"},
	{"overlay/prefetch", []string{"block"}, "decisions without I/O or clock, so that they are simulated"},
	{"overlay", []string{"block", "overlay/prefetch"}, "it declares the small interfaces it needs; node connects them to meta and raid"},
	{"profile", []string{"block"}, "it knows ranges, not where they are read or kept"},
	{"lun", []string{"block"}, "a unit speaks SCSI over any device"},
	{"target", []string{"lun", "target/pdu"}, "the transport sees units, not what is below them"},
	{"target/pdu", nil, "parsing only, without state"},
	{"node", []string{"block", "blobstore", "meta", "raid", "raid/stripe", "overlay", "profile", "lun", "target"}, "it alone builds the tree of devices"},
	{"admin", []string{"node"}, "the API tells what a node knows"},
	{"plan", nil, "it picks disks from a catalogue, and knows no array"},
	{"measure", []string{"block"}, "it measures any disk, one of ours or not"},
	{"cmd", []string{"node", "admin", "plan", "measure"}, "a command asks the node or its API, and reads nothing behind their backs; which disks to use is asked of plan and measure"},
	{"", []string{"cmd"}, "main calls the command line"},
}

// places says where a package from outside the standard library may be
// imported: below one of the folders, or in one of the files. An import that
// matches no line is forbidden. Longer paths come before their beginnings.
var places = []struct {
	pkg   string
	where []string
	why   string
}{
	{"go.etcd.io/bbolt", []string{"meta/"}, "one package knows the schema"},
	{"github.com/gostor/gotgt", []string{"lun/", "target/driver.go", "target/driver_test.go"}, "it is the frame, not the data path"},
	{"github.com/sirupsen/logrus", []string{"lun/"}, "gotgt logs with it; lun hands that on to slog"},
	{"github.com/Azure/azure-sdk-for-go", []string{"blobstore/", "test/azurite/"}, "SDK errors are classified where they arise; test/azurite is the stranger who changes the store"},
	{"github.com/spf13/cobra", []string{"cmd/"}, "the command line is cmd's"},
	{"github.com/spf13/pflag", []string{"cmd/"}, "the command line is cmd's"},
	{"github.com/spf13/viper", []string{"cmd/"}, "a package has a Config; where its values come from is cmd's"},
	{"github.com/go-viper/mapstructure", []string{"cmd/"}, "as viper"},
	{"go.yaml.in/yaml", []string{"cmd/", "plan/"}, "as viper; a catalogue of disks is a file of its own"},
	{"github.com/lmittmann/tint", []string{"cmd/"}, "a logger is passed in; how it prints is cmd's"},
	{"github.com/schollz/progressbar", []string{"cmd/"}, "as tint: the others report progress to a function"},
	{"golang.org/x/term", []string{"cmd/"}, "only the command line has a terminal"},
	{"github.com/Shopify/toxiproxy", []string{"test/toxic/"}, "links that fail, for tests"},
	{"github.com/rs/zerolog", []string{"test/toxic/"}, "toxiproxy logs with it"},
	{"golang.org/x/sync", []string{""}, "of the Go project"},
	{"golang.org/x/sys", []string{""}, "of the Go project"},
}

// check returns the rule that file, a slash-separated path from the root of
// the module, breaks by importing pkg, or "".
func check(file, pkg string) string {
	ours, ok := strings.CutPrefix(pkg+"/", module+"/")
	switch first, _, _ := strings.Cut(pkg, "/"); {
	case ok:
		return checkLayer(file, strings.TrimSuffix(ours, "/"))
	case pkg == "C":
		return "the binary is static: no cgo"
	case pkg == "testing" && !isTest(file):
		return "the binary has no test flags: package testing is for tests"
	case !strings.Contains(first, "."):
		return "" // standard library
	case strings.HasPrefix(file, "block/"):
		return "the contract is in terms of the standard library only"
	}
	for _, p := range places {
		if pkg != p.pkg && !strings.HasPrefix(pkg, p.pkg+"/") {
			continue
		}
		for _, w := range p.where {
			if file == w || strings.HasPrefix(file, w) && (w == "" || strings.HasSuffix(w, "/")) {
				return ""
			}
		}
		return "only " + strings.Join(p.where, ", ") + ": " + p.why
	}
	return "a dependency has its place: give it a line in this test, with the reason"
}

// checkLayer is check for our own packages.
func checkLayer(file, pkg string) string {
	if isTest(file) {
		return "" // a test may use any of ours to build what it tests
	}
	if strings.HasPrefix(pkg, "test/") || isSuite(pkg) {
		return "what is for tests stays out of the binary"
	}
	dir := path.Dir(file)
	if dir == "." {
		dir = ""
	}
	for _, l := range layers {
		if l.pkg != dir {
			continue
		}
		if slices.Contains(l.may, pkg) {
			return ""
		}
		return "may import of ours [" + strings.Join(l.may, " ") + "]: " + l.why
	}
	return "a package has its place: give it a line in this test, with the reason"
}

// isTest tells whether a file stays out of the binary: it is a test, or a
// suite for tests, in a folder named like fstest.
func isTest(file string) bool {
	return strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "test/") || isSuite(path.Dir(file))
}

func isSuite(dir string) bool { return strings.HasSuffix(dir, "test") }

func TestImports(t *testing.T) {
	root, seen := "..", 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "data") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		for _, spec := range f.Imports {
			pkg, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if rule := check(filepath.ToSlash(rel), pkg); rule != "" {
				t.Errorf("%s imports %s: %s", rel, pkg, rule)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("looked at %d files only", seen)
	}
}

func TestImportRulesBite(t *testing.T) {
	for _, c := range []struct {
		file, pkg string
		ok        bool
	}{
		{"block/range.go", "fmt", true},
		{"block/range.go", "skylun/meta", false},
		{"block/range.go", "golang.org/x/sys/unix", false},
		{"meta/db.go", "go.etcd.io/bbolt", true},
		{"meta/db_test.go", "go.etcd.io/bbolt/errors", true},
		{"overlay/commit.go", "go.etcd.io/bbolt", false},
		{"node/volume_test.go", "go.etcd.io/bbolt", false},
		{"lun/gotgt.go", "github.com/gostor/gotgt/pkg/api", true},
		{"target/driver.go", "github.com/gostor/gotgt/pkg/scsi", true},
		{"target/driver.go.go", "github.com/gostor/gotgt/pkg/scsi", false},
		{"target/server.go", "github.com/gostor/gotgt/pkg/scsi", false},
		{"target/driver_test.go", "github.com/gostor/gotgt/pkg/scsi", true}, // as a program that uses gotgt would
		{"target/server_test.go", "github.com/gostor/gotgt/pkg/scsi", false},
		{"blobstore/azure.go", "github.com/Azure/azure-sdk-for-go/sdk/azidentity", true},
		{"node/node.go", "github.com/Azure/azure-sdk-for-go/sdk/azidentity", false},
		{"node/config.go", "github.com/spf13/viper", false},
		{"cmd/config.go", "github.com/spf13/viper", true},
		{"cmd/image.go", "skylun/blobstore", false},
		{"cmd/image.go", "skylun/node", true},
		{"overlay/volume.go", "skylun/raid", false},
		{"overlay/volume_test.go", "skylun/raid", true},
		{"overlay/volume.go", "skylun/test/memdev", false},
		{"overlay/volume_test.go", "skylun/test/memdev", true},
		{"overlay/volume.go", "testing", false},
		{"test/devicetest/suite.go", "testing", true},
		{"blobstore/storetest/suite.go", "testing", true},
		{"blobstore/storetest/suite.go", "skylun/blobstore", true},
		{"blobstore/file.go", "skylun/blobstore/storetest", false},
		{"target/pdu/pdu.go", "skylun/target", false},
		{"main.go", "skylun/cmd", true},
		{"main.go", "skylun/node", false},
		{"util/strings.go", "skylun/block", false},
		{"raid/file.go", "C", false},
		{"raid/file.go", "example.com/raid", false},
		{"raid/file.go", "skylunar", true}, // not ours; no dot: standard library
	} {
		if rule := check(c.file, c.pkg); (rule == "") != c.ok {
			t.Errorf("check(%q, %q) = %q, want ok %v", c.file, c.pkg, rule, c.ok)
		}
	}
}
