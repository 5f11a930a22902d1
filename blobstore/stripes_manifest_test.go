package blobstore

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func goodManifest() *manifest {
	m := &manifest{Name: "a", Size: 1 << 20, StripeSize: 64 << 10, Format: Raw}
	for i := range 4 {
		m.Parts = append(m.Parts, part{Name: partName("a", i), Size: 1 << 18, Identity: fmt.Sprintf("0x%d", i)})
	}
	return m
}

// What whoever can write to the store may put there is refused, or harmless.
func TestHostileManifests(t *testing.T) {
	parse := func(m *manifest) error {
		layout, err := m.layout()
		if err != nil {
			t.Fatal(err)
		}
		_, err = parseLayout(layout)
		return err
	}
	if err := parse(goodManifest()); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*manifest){
		"no size":               func(m *manifest) { m.Size = 0 },
		"negative size":         func(m *manifest) { m.Size = -1 << 20 },
		"enormous size":         func(m *manifest) { m.Size = 1<<63 - 1 },
		"no stripe size":        func(m *manifest) { m.StripeSize = 0 },
		"negative stripe size":  func(m *manifest) { m.StripeSize = -65536 },
		"tiny stripes":          func(m *manifest) { m.StripeSize = 4096 },
		"odd stripes":           func(m *manifest) { m.StripeSize = 65537 },
		"uneven stripes":        func(m *manifest) { m.StripeSize = 3 << 16 },
		"enormous stripes":      func(m *manifest) { m.StripeSize = 1 << 62 },
		"no parts":              func(m *manifest) { m.Parts = nil },
		"more parts than bytes": func(m *manifest) { m.Size = 1 << 16 },
		"thousands of parts": func(m *manifest) {
			for i := range 200 {
				m.Parts = append(m.Parts, part{Name: partName("a", i+4), Size: 1 << 18, Identity: "0x1"})
			}
		},
		"part elsewhere":         func(m *manifest) { m.Parts[0].Name = "b" },
		"part above the store":   func(m *manifest) { m.Parts[0].Name = ".stripes/../../etc/passwd" },
		"absolute part":          func(m *manifest) { m.Parts[0].Name = "/etc/passwd" },
		"part with a tail":       func(m *manifest) { m.Parts[0].Name += "/../../../x" },
		"state of a part":        func(m *manifest) { m.Parts[0].Name += ".json" },
		"part twice":             func(m *manifest) { m.Parts[0].Name = m.Parts[1].Name },
		"part too small":         func(m *manifest) { m.Parts[2].Size-- },
		"part too large":         func(m *manifest) { m.Parts[2].Size++ },
		"part without identity":  func(m *manifest) { m.Parts[2].Identity = "" },
		"part with long idenity": func(m *manifest) { m.Parts[2].Identity = strings.Repeat("x", 1000) },
	} {
		m := goodManifest()
		change(m)
		if err := parse(m); err == nil {
			t.Errorf("%s: accepted", what)
		} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%s: %v", what, err)
		}
	}
	layout, _ := goodManifest().layout()
	doc, err := manifestDocument(layout)
	if err != nil {
		t.Fatal(err)
	}
	for what, d := range map[string][]byte{
		"other version": bytes.Replace(doc, []byte(" 1 "), []byte(" 2 "), 1),
		"changed":       bytes.Replace(doc, []byte(`"size":1048576`), []byte(`"size":1048577`), 1),
		"cut":           doc[:len(doc)/2],
		"nothing else":  []byte(manifestMagic),
		"no sum":        []byte(manifestKind),
	} {
		if _, err := parseDocument(d); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if got, err := parseDocument(doc); err != nil || got != layout {
		t.Errorf("parseDocument = %q, %v", got, err)
	}
}

// In an Info from elsewhere the layout has to be the one its identity names.
func TestStripedInfoIsPinned(t *testing.T) {
	s := openDir(t, t.TempDir())
	layout, _ := goodManifest().layout()
	good := Info{Name: "a", Size: 1 << 20, BlobSize: 1 << 20, Layout: layout, Identity: stripedIdentity("1-2-3", layout)}
	if _, err := good.striped(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Info{
		{Name: "a", Size: 1 << 20, BlobSize: 1 << 20, Layout: layout, Identity: "1-2-3"},
		{Name: "a", Size: 1 << 20, BlobSize: 1 << 20, Layout: layout + " ", Identity: good.Identity},
		{Name: "a", Size: 1 << 20, BlobSize: 1 << 20, Layout: "{}", Identity: stripedIdentity("1-2-3", "{}")},
	} {
		if err := s.Image(bad).ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrChanged) {
			t.Errorf("%+v: %v, want ErrChanged", bad, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	layout, _ := goodManifest().layout()
	doc, _ := manifestDocument(layout)
	f.Add(doc)
	f.Add([]byte(layout))
	f.Fuzz(func(t *testing.T, doc []byte) {
		layout := string(doc)
		if l, err := parseDocument(doc); err == nil {
			layout = l
		}
		m, err := parseLayout(layout)
		if err != nil {
			return
		}
		g, err := m.geometry()
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for i, p := range m.Parts {
			sum += p.Size
			if partIndex(p.Name) < 0 || g.position(i, p.Size-1) >= m.Size {
				t.Fatalf("part %d, %+v, of an image of %d bytes", i, p, m.Size)
			}
		}
		if sum != m.Size {
			t.Fatalf("parts of %d bytes for an image of %d", sum, m.Size)
		}
	})
}
