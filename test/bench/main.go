package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 6 && os.Args[1] == "load":
		err = loadMain(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	case len(os.Args) == 5 && os.Args[1] == "plain":
		err = plainMain(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 6 && os.Args[1] == "files":
		err = smallFilesMain(os.Args[2:])
	default:
		err = benchMain()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line sets.
type options struct {
	dirs    []string
	size    int64
	repeats int
	time    time.Duration
	rows    []row
	binary  string // the server, empty: built from this source
}

func benchMain() error {
	var (
		o     options
		match = flag.String("rows", ".", "measure the rows whose name matches this `regexp`")
		dir   = flag.String("dir", "/dev/shm:/var/tmp", "put the files below each of these `directories`, one table each")
		mib   = flag.Int64("size", 256, "size of each unit in `MiB`, at most 2047")
		list  = flag.Bool("list", false, "print the names of the rows and end")
		md    = flag.String("md", "", "also write the tables as markdown to this `file`")
	)
	flag.StringVar(&o.binary, "skylun", "", "measure this `binary` instead of one built from the source")
	flag.IntVar(&o.repeats, "repeats", 5, "how often each side has its turn")
	flag.DurationVar(&o.time, "time", 3*time.Second, "how long one turn takes, in whole seconds")
	flag.Parse()
	re, err := regexp.Compile(*match)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if *list {
			fmt.Println(r.name)
		} else if re.MatchString(r.name) {
			o.rows = append(o.rows, r.timed(o.time))
		}
	}
	var cold []coldRow
	for _, r := range coldRows {
		if *list {
			fmt.Println(r.name)
		} else if re.MatchString(r.name) {
			cold = append(cold, r)
		}
	}
	if *list {
		return nil
	}
	if len(o.rows)+len(cold) == 0 {
		return fmt.Errorf("no row matches %q; -list shows them", *match)
	}
	o.dirs = filepath.SplitList(*dir)
	o.size = *mib << 20

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	out := os.Stdout
	for _, d := range o.dirs {
		if len(o.rows) > 0 {
			t, err := o.table(ctx, d)
			if err != nil {
				return err
			}
			t.text(out)
			if *md != "" {
				if err := t.appendMarkdown(*md); err != nil {
					return err
				}
			}
		}
		if len(cold) > 0 {
			lines, err := measureCold(ctx, o, cold, d)
			if err != nil {
				return err
			}
			coldText(out, coldTitle(o, d), lines)
			if *md != "" {
				if err := coldMarkdown(*md, coldTitle(o, d), lines); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// table measures all rows with files below dir.
func (o options) table(ctx context.Context, dir string) (*table, error) {
	work, err := os.MkdirTemp(dir, "skylun-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	sides, err := o.startAll(work)
	defer func() {
		for _, s := range sides {
			s.stop()
		}
	}()
	if err != nil {
		return nil, err
	}
	t := &table{options: o, dir: dir, system: fileSystem(dir)}
	for _, r := range o.rows {
		if r.contest != nil {
			c, err := r.contest(ctx, o, work)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			l, err := o.hold(ctx, r, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			t.lines = append(t.lines, l)
			fmt.Fprintln(os.Stderr, l.progress())
			continue
		}
		for _, client := range r.clients() {
			l, err := o.compare(ctx, r, client, sides)
			if err != nil {
				return nil, fmt.Errorf("%s, client %s: %w", r.name, client, err)
			}
			t.lines = append(t.lines, l)
			fmt.Fprintln(os.Stderr, l.progress())
		}
	}
	return t, nil
}
