package cmd

import (
	"context"
	"errors"
	"log/slog"

	"skylun/admin"
	"skylun/node"
)

// quietLogger returns the logger of commands that are not a server. What they
// have to say is their output and their error, so only errors are logged
// unless more is asked for.
func (e *env) quietLogger(s *settings) *slog.Logger {
	c := s.Log
	if e.logLevel == "" {
		c.Level = "error"
	}
	return newLogger(e.stderr, c)
}

// access is a node to ask, and how to let go of it.
type access struct {
	admin.API
	settings *settings
	running  bool // it is another process
	close    func() error
}

// open reaches the running node, or opens the data directory where none runs.
// create says to begin a data directory that does not exist yet.
func (e *env) open(ctx context.Context, create bool) (*access, error) {
	s, err := e.load()
	if err != nil {
		return nil, err
	}
	c, err := admin.Dial(ctx, s.SocketPath())
	if err == nil {
		return &access{c, s, true, c.Close}, nil
	}
	if !errors.Is(err, node.ErrNotRunning) {
		return nil, err
	}
	n, err := node.Open(ctx, s.Config, create, e.quietLogger(s))
	if err != nil {
		return nil, s.locate(err)
	}
	return &access{n, s, false, func() error { return n.Close(context.WithoutCancel(ctx)) }}, nil
}

// with calls f with a node and lets go of it afterwards.
func (e *env) with(ctx context.Context, create bool, f func(*access) error) (err error) {
	a, err := e.open(ctx, create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	return f(a)
}

// withStore calls f with the blob store of the configuration.
func (e *env) withStore(ctx context.Context, f func(*node.Store) error) (err error) {
	s, err := e.load()
	if err != nil {
		return err
	}
	store, err := node.OpenStore(ctx, s.Config, e.quietLogger(s))
	if err != nil {
		return s.locate(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return f(store)
}
