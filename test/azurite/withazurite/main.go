// Command withazurite runs a command while an Azurite is running, whose
// connection string the command finds in SKYLUN_TEST_AZURITE:
//
//	withazurite go test ./blobstore
//
// Its exit status is the command's.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"skylun/test/azurite"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: withazurite COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	err := run(os.Args[1:])
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "withazurite:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	dir, err := os.MkdirTemp("", "skylun-azurite-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := azurite.Start(dir)
	if err != nil {
		return err
	}
	defer server.Stop()

	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SKYLUN_TEST_AZURITE="+server.ConnectionString())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals { // for the command to end by; we end after it
			cmd.Process.Signal(s)
		}
	}()
	return cmd.Wait()
}
