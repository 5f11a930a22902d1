package shaped

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// PutStriped makes an image that is laid over several blobs, as a striped
// import would have.
func (s *Store) PutStriped(name string, content io.ReaderAt, size int64, parts int, stripe int64) error {
	type part struct {
		Name     string `json:"name"`
		Size     int64  `json:"size"`
		Identity string `json:"identity"`
	}
	m := struct {
		Name       string `json:"name"`
		Size       int64  `json:"size"`
		StripeSize int64  `json:"stripe_size"`
		Parts      []part `json:"parts"`
	}{name, size, stripe, make([]part, parts)}
	if row := stripe * int64(parts); size%row != 0 {
		return fmt.Errorf("an image of %d bytes is no whole number of rows of %d", size, row)
	}
	h := sha256.Sum256([]byte(name))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range m.Parts {
		p := &m.Parts[i]
		p.Name, p.Size = fmt.Sprintf(".stripes/%x/%d", h[:16], i), size/int64(parts)
		b := &blob{content: &partReader{content, int64(i), int64(parts), stripe}, size: p.Size}
		s.put(p.Name, b)
		p.Identity = strings.Trim(b.etag, `"`)
	}
	layout, err := json.Marshal(m)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("skylun striped image 1 %x\n%s", sha256.Sum256(layout), layout)
	s.put(name, &blob{content: strings.NewReader(text), size: int64(len(text)), small: true})
	return nil
}

// partReader is what a part holds of an image.
type partReader struct {
	content          io.ReaderAt
	i, parts, stripe int64
}

func (r *partReader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		in := off % r.stripe
		q := p[n:min(len(p), n+int(r.stripe-in))]
		k, err := r.content.ReadAt(q, (off/r.stripe*r.parts+r.i)*r.stripe+in)
		n, off = n+k, off+int64(k)
		if k < len(q) && (err == nil || errors.Is(err, io.EOF)) {
			return n, io.ErrUnexpectedEOF
		}
		if k < len(q) {
			return n, err
		}
	}
	return n, nil
}
