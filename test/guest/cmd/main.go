// Command cmd runs a script in a guest, or a shell to look around.
//
//	go run ./test/guest/cmd -shell
//	go run ./test/guest/cmd [-env K=V] test/guest/scripts/ext4.sh
//
// The server runs beside it with one blank disk, or with another configuration
// and images. See the documentation of package guest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"skylun/test/guest"
)

func main() {
	status, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func run() (int, error) {
	o := guest.Options{Output: os.Stdout, Env: map[string]string{}, Images: map[string]string{}}
	var config, serve string
	var keep bool
	flag.BoolVar(&o.Shell, "shell", false, "a shell instead of a script; exit ends all")
	flag.BoolVar(&keep, "keep", false, "keep the folder of the run")
	flag.BoolVar(&o.Again, "again", false, "make the guest again, with today's packages")
	flag.StringVar(&o.Binary, "binary", "", "`file` of the server; it is built if not given")
	flag.StringVar(&config, "config", "", "`file` with another configuration of the server")
	flag.StringVar(&serve, "serve", "", "another server instead: a `command`, run by sh in the folder of the run")
	flag.IntVar(&o.Memory, "memory", 0, "`MiB` of the guest")
	flag.DurationVar(&o.Timeout, "timeout", 10*time.Minute, "how long a script may take")
	flag.Var(pairs(o.Env), "env", "`NAME=VALUE` for the script")
	flag.Var(pairs(o.Images), "image", "`NAME=FILE` to import")
	flag.Parse()

	var script string
	switch {
	case o.Shell && flag.NArg() == 0:
	case flag.NArg() == 1:
		text, err := os.ReadFile(flag.Arg(0))
		if err != nil {
			return 1, err
		}
		script = string(text)
	default:
		flag.Usage()
		return 2, errors.New("give -shell or one script")
	}
	if config != "" {
		text, err := os.ReadFile(config)
		if err != nil {
			return 1, err
		}
		o.Config = string(text)
	}
	if serve != "" {
		o.Serve = []string{"sh", "-c", serve}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := guest.Do(ctx, script, o)
	if keep || err != nil || r.Status != 0 {
		dir, kerr := r.Keep("by-hand")
		if dir != "" {
			fmt.Println("kept:", dir)
		}
		return r.Status, errors.Join(err, kerr)
	}
	return r.Status, r.Remove()
}

// pairs is a flag that may be given more than once.
type pairs map[string]string

func (p pairs) String() string { return "" }

func (p pairs) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("want NAME=VALUE")
	}
	p[k] = v
	return nil
}
