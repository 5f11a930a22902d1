package blobstore

import (
	"context"
	"errors"
	"log/slog"
	"net"
)

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func openAzure(cfg Config, dial dialer, log *slog.Logger) (Store, error) {
	return nil, errors.New("not built yet")
}
