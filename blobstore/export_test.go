package blobstore

import "context"

// Putter makes objects by other means than a Store.
type Putter func(name string, content []byte)

// PutStriped makes a striped image by other means than a Store.
func PutStriped(ctx context.Context, s Store, put Putter, name string, content []byte, st Striping) error {
	be := s.(striper)
	st = st.withDefaults(int64(len(content)))
	m := &manifest{Name: name, Size: int64(len(content)), StripeSize: st.Size, Parts: make([]part, st.Parts)}
	g, err := m.geometry()
	if err != nil {
		return err
	}
	parts := make([][]byte, st.Parts)
	for i := range parts {
		parts[i] = make([]byte, g.sizes[i])
	}
	for off := int64(0); off < m.Size; off += st.Size {
		i := off / st.Size % int64(st.Parts) // dealt in turn
		copy(parts[i][off/st.Size/int64(st.Parts)*st.Size:], content[off:min(off+st.Size, m.Size)])
	}
	for i, p := range parts {
		put(partName(name, i), p)
		id, size, err := be.statObject(ctx, partName(name, i))
		if err != nil {
			return err
		}
		m.Parts[i] = part{Name: partName(name, i), Size: size, Identity: id}
	}
	layout, err := m.layout()
	if err != nil {
		return err
	}
	doc, err := manifestDocument(layout)
	if err != nil {
		return err
	}
	put(name, doc)
	return nil
}
