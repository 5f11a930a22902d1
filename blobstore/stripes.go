package blobstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"skylun/block"
	"skylun/raid/stripe"
)

// A striped image is several objects, its parts, and a manifest under the
// image's name that says what they are:
//
//	stripe   0    1    2    3    4    5    6    7
//	part     0    1    2    0    1    2    0    1      of three
//	at       0    0    0    S    S    S    2S   2S     S: the size of a stripe
//
// A part holds its stripes one after the other, so what a range of the image
// has in one part is one range there. The manifest is text:
//
//	skylun striped image 1 SHA256\n
//	{"name":…,"size":…,"stripe_size":…,"format":…,"parts":[{"name":…,"size":…,"identity":…},…]}
//
// followed by zeros. The sum is of the line of JSON without what follows.
// The identity of the image is that of the manifest and the sum: a part that
// is changed has another identity than the manifest says.
//
// The manifest is written last and appears like any other image, by Commit of
// an upload under the image's name. That upload is there from the beginning:
// whoever holds it owns the parts. The parts stay uploads for ever, as they
// are no images: so an import that was stopped anywhere before the manifest
// goes on with them.

// Striping says how an image is laid over several objects. The zero value is
// one object.
type Striping struct {
	Parts int   // how many objects
	Size  int64 // bytes of a stripe, a power of two; 0: a good number
}

const (
	defaultStripe = stripe.DefaultSize
	minStripe     = 64 << 10
	maxStripe     = 1 << 30
	maxParts      = 128

	stripesDir    = ".stripes"
	manifestMagic = "skylun striped image "
	manifestKind  = manifestMagic + "1 "
	manifestSize  = 64 << 10 // of the object; what maxParts need is less
	maxImage      = 1 << 55  // bytes, so that no sum of offsets overflows
)

// withDefaults returns s as it is used for an image of size bytes.
func (s Striping) withDefaults(size int64) Striping {
	if s.Size == 0 {
		s.Size = defaultStripe
	}
	if s.Size > 0 { // no part without a byte
		s.Parts = int(min(int64(s.Parts), (size-1)/s.Size+1))
	}
	return s
}

// Validate tells what is wrong with s.
func (s Striping) Validate() error {
	switch {
	case s.Parts < 0 || s.Parts > maxParts:
		return &fault{ErrFormat, fmt.Sprintf("an image cannot have %d stripes: 1 to %d", s.Parts, maxParts)}
	case s.Size != 0 && (s.Size < minStripe || s.Size > maxStripe || s.Size&(s.Size-1) != 0):
		return &fault{ErrFormat, fmt.Sprintf("a stripe cannot have %d bytes: a power of two from %d to %d", s.Size, minStripe, maxStripe)}
	}
	return nil
}

// manifest is the document of a striped image.
type manifest struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	StripeSize int64  `json:"stripe_size"`
	Format     Format `json:"format,omitempty"`
	Parts      []part `json:"parts"`
}

// part is one object of a striped image.
type part struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	Identity string `json:"identity"`
}

func (m *manifest) geometry() (geometry, error) {
	return newGeometry(m.Size, m.StripeSize, len(m.Parts))
}

// partsFolder is where the parts of an image are.
func partsFolder(image string) string {
	h := sha256.Sum256([]byte(image))
	return stripesDir + "/" + hex.EncodeToString(h[:16]) + "/"
}

func partName(image string, i int) string { return partsFolder(image) + strconv.Itoa(i) }

func isPart(name string) bool { return strings.HasPrefix(name, stripesDir+"/") }

var partForm = regexp.MustCompile(`^\.stripes/[0-9a-f]{32}/(0|[1-9][0-9]{0,2})$`)

// partIndex returns the number that the name of a part ends in, or -1.
func partIndex(name string) int {
	m := partForm.FindStringSubmatch(name)
	if m == nil {
		return -1
	}
	i, _ := strconv.Atoi(m[1])
	return i
}

// layout returns m as a line of JSON.
func (m *manifest) layout() (string, error) {
	line, err := json.Marshal(m)
	return string(line), err
}

func layoutSum(layout string) string {
	sum := sha256.Sum256([]byte(layout))
	return hex.EncodeToString(sum[:])
}

// manifestDocument returns the content of the object that holds a layout.
func manifestDocument(layout string) ([]byte, error) {
	text := manifestKind + layoutSum(layout) + "\n" + layout
	if len(text) > manifestSize {
		return nil, fmt.Errorf("a manifest of %d bytes is larger than %d", len(text), manifestSize)
	}
	doc := make([]byte, block.Ceil(int64(len(text)), sector))
	copy(doc, text)
	return doc, nil
}

// errManifest says that content is a manifest. Only who can get at the parts
// can do anything with it.
var errManifest = &fault{ErrFormat, "is the manifest of a striped image, whose parts are in the store it was made in: copy the image itself"}

// parseDocument returns the layout that the content of a manifest's object
// holds.
func parseDocument(doc []byte) (string, error) {
	text := string(bytes.TrimRight(doc, "\x00"))
	rest, ok := strings.CutPrefix(text, manifestKind)
	if !ok {
		version, _, _ := strings.Cut(strings.TrimPrefix(text, manifestMagic), " ")
		return "", fmt.Errorf("has a manifest of the version %.16q, only 1 is known", version)
	}
	sum, layout, _ := strings.Cut(rest, "\n")
	if sum != layoutSum(layout) {
		return "", errors.New("has a damaged manifest: its checksum does not match")
	}
	return layout, nil
}

// parseLayout takes a layout apart. Nothing in it is believed: whoever can write
// to the store may have made it.
func parseLayout(layout string) (*manifest, error) {
	if len(layout) > manifestSize {
		return nil, errors.New("has a manifest that is too large")
	}
	d := json.NewDecoder(strings.NewReader(layout))
	m := &manifest{}
	if err := d.Decode(m); err != nil {
		return nil, errors.New("has a manifest that is not understood")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("has a manifest with something behind it")
	}
	bad := func(format string, args ...any) (*manifest, error) {
		return nil, errors.New("has a manifest that cannot be right: " + fmt.Sprintf(format, args...))
	}
	s := Striping{Parts: len(m.Parts), Size: m.StripeSize}
	switch {
	case m.Size <= 0 || m.Size > maxImage:
		return bad("an image of %d bytes", m.Size)
	case s.Parts == 0 || s.Size == 0:
		return bad("no stripes")
	case s.Validate() != nil:
		return bad("%v", s.Validate())
	case s.withDefaults(m.Size).Parts != s.Parts:
		return bad("%d parts for %d bytes", s.Parts, m.Size)
	}
	g, err := m.geometry()
	if err != nil {
		return bad("%v", err)
	}
	seen := map[string]bool{}
	for i, p := range m.Parts {
		switch {
		case partIndex(p.Name) < 0 || seen[p.Name]:
			return bad("part %d is named %.80q", i, p.Name)
		case p.Size != g.sizes[i]:
			return bad("part %d has %d bytes", i, p.Size)
		case p.Identity == "" || len(p.Identity) > 200:
			return bad("part %d has the identity %.80q", i, p.Identity)
		}
		seen[p.Name] = true
	}
	return m, nil
}

// stripedIdentity is the identity of a striped image whose manifest's object
// has the identity id.
func stripedIdentity(id, layout string) string { return id + "+" + layoutSum(layout)[:32] }

// striped returns the manifest that info was made of.
func (i Info) striped() (*manifest, error) {
	if !strings.HasSuffix(i.Identity, stripedIdentity("", i.Layout)) {
		return nil, errChanged("image " + i.Name)
	}
	m, err := parseLayout(i.Layout)
	if err != nil {
		return nil, errChanged("image " + i.Name)
	}
	return m, nil
}

// Striping returns how the image is laid over several objects; the zero value:
// it is one.
func (i Info) Striping() Striping {
	if i.Layout == "" {
		return Striping{}
	}
	m, err := parseLayout(i.Layout)
	if err != nil {
		return Striping{}
	}
	return Striping{Parts: len(m.Parts), Size: m.StripeSize}
}
