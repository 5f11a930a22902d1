// Command memtarget serves disks in memory over iSCSI, for trying the
// transport with other people's clients and for profiling it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"syscall"
	"time"

	"skylun/lun"
	"skylun/target"
)

func main() {
	portal := flag.String("portal", "127.0.0.1:3260", "address to listen on")
	size := flag.Int64("size", 1<<30, "bytes of the disk")
	iqn := flag.String("iqn", "iqn.2026-11.io.skylun:mem", "name of the target")
	file := flag.String("file", "", "file to serve instead of memory")
	prof := flag.String("pprof", "", "address for net/http/pprof")
	verbose := flag.Bool("v", false, "log everything")
	flag.Parse()
	if err := run(*portal, *iqn, *file, *size, *prof, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(portal, iqn, file string, size int64, prof string, verbose bool) error {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if prof != "" {
		go http.ListenAndServe(prof, nil)
	}
	dev, err := open(file, size)
	if err != nil {
		return err
	}
	units := lun.NewMap()
	if err := units.Add(0, lun.NewDisk(dev, lun.DiskConfig{Name: "memory", ID: [16]byte{1}}, log)); err != nil {
		return err
	}
	s, err := target.New(target.Config{Portals: target.At(portal)}, log)
	if err != nil {
		return err
	}
	if err := s.AddTarget(target.Target{Name: iqn, Units: units}); err != nil {
		return err
	}
	if err := s.Listen(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			log.Error("shutdown", "err", err)
		}
	})
	return s.Serve(context.Background())
}
