package image

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"strings"
)

var (
	//go:embed packages
	packageList string
	//go:embed files
	fileList string
	//go:embed modules
	moduleList string
	//go:embed init
	initScript string
)

// layout counts changes of how the lists are read, so that what was made
// another way is not taken for theirs.
const layout = 1

// words returns what a list holds: words, with comments from # to the end of
// the line.
func words(list string) []string {
	var all []string
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		all = append(all, strings.Fields(line)...)
	}
	return all
}

// fingerprint names what the lists ask for.
func fingerprint() string {
	h := sha256.New()
	h.Write([]byte{layout})
	for _, s := range []string{strings.Join(words(packageList), " "), strings.Join(words(fileList), " "),
		strings.Join(words(moduleList), " "), initScript} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
