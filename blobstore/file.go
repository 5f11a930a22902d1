package blobstore

import (
	"errors"
	"log/slog"
)

func openFile(cfg Config, log *slog.Logger) (Store, error) { return nil, errors.New("not built yet") }
