package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"skylun/node"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main runs the command line of the process and returns its exit status. The
// first SIGINT, SIGTERM or SIGHUP asks the command to stop, the second ends
// the process at once.
func Main() int {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, signals...)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		cancel(stopped{<-ch})
		<-ch
		fmt.Fprintln(os.Stderr, "skylun: stopped at once by a second signal; what was not flushed may be lost")
		os.Exit(exitFailed)
	}()
	return Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// stopped is why a command's context has ended.
type stopped struct{ signal os.Signal }

func (s stopped) Error() string { return "stopped by signal: " + s.signal.String() }

// Run runs one command until it is done or ctx ends, and returns its exit
// status.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{stdout: stdout, stderr: stderr}
	root := newRoot(e)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := err.Error()
	if !e.started {
		text = suggestion.Replace(strings.TrimSpace(text))
	}
	for line := range strings.Lines(text) {
		fmt.Fprintln(stderr, "skylun:", strings.TrimRight(line, "\n"))
	}
	var usage usageError
	switch {
	case !e.started: // cobra's own errors: flags, arguments, unknown commands
		fmt.Fprintf(stderr, "See '%s --help'.\n", command.CommandPath())
		return exitUsage
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailed
}

// suggestion makes one line of what cobra says about a command it does not
// know.
var suggestion = strings.NewReplacer("\n\nDid you mean this?\n\t", "; did you mean ", "\n\t", " or ")

// usageError is what the user can set right by asking differently.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// env is what all commands share.
type env struct {
	stdout, stderr io.Writer
	started        bool // the command's own code has begun

	config    string // path of the configuration file
	output    string // text, json
	logLevel  string
	logFormat string
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "skylun",
		Short: "An iSCSI target whose disks live in the cloud",
		Long: `skylun is an iSCSI target whose disks live in the cloud. A disk is an overlay over
an image in a blob store: what is read is copied to local disk on the way, what is
written stays local.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if e.output != "text" && e.output != "json" {
				return usagef("-o %s: want text or json", e.output)
			}
			e.started = true
			return nil
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	config := "config.yaml"
	if p := os.Getenv(configEnv); p != "" {
		config = p
	}
	f := root.PersistentFlags()
	f.StringVarP(&e.config, "config", "c", config, "configuration file, also $"+configEnv)
	f.StringVarP(&e.output, "output", "o", "text", "text or json")
	f.StringVar(&e.logLevel, "log-level", "", "debug, info, warn or error, instead of log.level")
	f.StringVar(&e.logFormat, "log-format", "", "text or json, instead of log.format")
	root.AddCommand(
		newServe(e),
		newImage(e),
		newVolume(e),
		newSnapshot(e),
		newClone(e),
		newLUN(e),
		newCDROM(e),
		newPrefetch(e),
		newLocal(e),
		newStatus(e),
		newCheck(e),
		newVersion(e),
	)
	return root
}

// configEnv names the configuration file instead of -c.
const configEnv = envPrefix + "_CONFIG"

// group returns a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var names []string
			for _, s := range c.Commands() {
				names = append(names, s.Name())
			}
			return usagef("%s what? One of: %s", c.CommandPath(), strings.Join(names, ", "))
		},
	}
	c.AddCommand(children...)
	return c
}

// load reads the configuration that the command works with.
func (e *env) load() (*settings, error) {
	return loadConfig(e.config, func(c *node.Config) {
		if e.logLevel != "" {
			c.Log.Level = e.logLevel
		}
		if e.logFormat != "" {
			c.Log.Format = e.logFormat
		}
	})
}
