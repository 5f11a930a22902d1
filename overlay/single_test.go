package overlay

import (
	"errors"
	"log/slog"
)

// single says what openSingle opens.
type single struct {
	Name  string
	Size  int64
	File  File
	Map   Map
	Base  *Cache
	Log   *slog.Logger
	Notes Notes
	Boot  string
}

// openSingle opens a volume of one layer; closeAll closes both.
func openSingle(cfg single) (*Volume, error) {
	l, err := OpenLayer(LayerConfig{Name: cfg.Name, Size: cfg.Size, File: cfg.File, Map: cfg.Map, Log: cfg.Log, Notes: cfg.Notes, Boot: cfg.Boot})
	if err != nil {
		return nil, err
	}
	return Open(Config{Name: cfg.Name, Size: cfg.Size, Layers: []*Layer{l}, Base: cfg.Base, Log: cfg.Log})
}

// closeAll closes a volume and its layers, which no other one uses.
func closeAll(v *Volume) error {
	errs := []error{v.Close()}
	for _, l := range v.view.Load().layers() {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (v *Volume) top() *Layer { return v.view.Load().top }
