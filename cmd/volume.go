package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newVolume(e *env) *cobra.Command {
	var spec node.VolumeSpec
	create := &cobra.Command{
		Use:   "create NAME [--image IMAGE | --snapshot SNAPSHOT[/VOLUME]] [--size SIZE]",
		Short: "Create a volume: an overlay of an image, a copy of a snapshot, or a blank disk",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			spec.Name = args[0]
			switch {
			case spec.Snapshot != "" && (spec.Image != "" || spec.Size != 0):
				return usagef("volume create %s: a copy of a snapshot has its image and its size: leave out --image and --size", spec.Name)
			case spec.Image == "" && spec.Size == 0 && spec.Snapshot == "":
				return usagef("volume create %s: a blank disk needs --size, an overlay --image", spec.Name)
			}
			return e.with(c.Context(), true, func(a *access) error {
				v, err := a.CreateVolume(c.Context(), spec)
				if err != nil {
					return err
				}
				return e.printVolume(v)
			})
		},
	}
	create.Flags().StringVar(&spec.Image, "image", "", "image that the volume is an overlay of")
	create.Flags().StringVar(&spec.Snapshot, "snapshot", "", "snapshot that the volume is a copy of")
	create.Flags().Var((*sizeFlag)(&spec.Size), "size", "size such as 40GiB; default: that of the image")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"},
		Short: "List the volumes of this node",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				volumes, err := a.Volumes(c.Context())
				if err != nil {
					return err
				}
				return e.print(volumes, func(t *table) {
					if len(volumes) == 0 {
						t.row("no volumes in " + a.settings.DataDir)
						return
					}
					t.row("NAME", "SIZE", "WRITTEN", "IMAGE", "TARGET", "LUN")
					for _, v := range volumes {
						image, iqn, lun := place(v)
						t.row(v.Name, node.Size(v.Size).Human(), node.Size(v.Written).Human(), image, iqn, lun)
					}
				})
			})
		},
	}
	show := &cobra.Command{
		Use:   "show NAME",
		Short: "Show one volume",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				v, err := a.Volume(c.Context(), args[0])
				if err != nil {
					return err
				}
				return e.printVolume(v)
			})
		},
	}
	var force bool
	export := &cobra.Command{
		Use:   "export NAME FILE",
		Short: "Copy the content of a volume into a raw, sparse file",
		Long: `Copy the content of a volume into a raw, sparse file. While an initiator writes to the
volume the file does not hold its content at one moment: log out first.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				return e.export(c.Context(), a, args[0], args[1], force)
			})
		},
	}
	export.Flags().BoolVar(&force, "force", false, "overwrite FILE")
	rm := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a volume and what was written to it",
		Long: `Remove a volume and what was written to it. Snapshots of it stay, and a volume can be made
of them again with "skylun clone"; "skylun snapshot rm" removes those.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				v, err := a.Volume(c.Context(), args[0])
				if err == nil {
					err = a.DeleteVolume(c.Context(), args[0])
				}
				if err != nil {
					return err
				}
				text := "volume " + v.Name + " is removed"
				if len(v.Snapshots) > 0 {
					text += "; what it was is still in " + strings.Join(v.Snapshots, ", ")
				}
				return e.done(text)
			})
		},
	}
	return group("volume", "Volumes of this node", create, list, show, newResize(e), newPin(e, true), newPin(e, false), export, rm)
}

// sizeFlag is a number of bytes as the user writes it.
type sizeFlag int64

func (f *sizeFlag) Set(s string) error {
	n, err := node.ParseSize(s)
	if err == nil && n == 0 {
		err = errors.New("a disk of no size")
	}
	*f = sizeFlag(n)
	return err
}
func (f *sizeFlag) String() string { return node.Size(*f).String() }
func (f *sizeFlag) Type() string   { return "size" }

// place returns what of a volume's table row may be missing.
func place(v node.VolumeStatus) (image, iqn, lun string) {
	image, iqn, lun = "-", "-", "-"
	if v.Image != nil {
		image = v.Image.Name
	}
	if v.LUN != nil {
		iqn, lun = v.LUN.IQN, fmt.Sprint(v.LUN.LUN)
	}
	return image, iqn, lun
}

func (e *env) printVolume(v node.VolumeStatus) error {
	return e.print(v, func(t *table) {
		t.row("name", v.Name)
		t.row("id", v.ID)
		t.row("size", fmt.Sprintf("%s (%d bytes)", node.Size(v.Size).Human(), v.Size))
		t.row("written", node.Size(v.Written).Human())
		t.row("zeroed", node.Size(v.Zeroed).Human())
		if v.Image != nil {
			t.row("cached", node.Size(v.Cached).Human()+" of the image, or known to be empty")
			t.row("absent", node.Size(v.Absent).Human())
			t.row("image", v.Image.Name)
			t.row("image identity", v.Image.Identity)
			t.row("image local", fmt.Sprintf("%s (%s copied, %s empty, %s to be fetched)", node.Percent(v.Image.Local()),
				node.Size(v.Image.Cached).Human(), node.Size(v.Image.Zero).Human(), node.Size(v.Image.Absent).Human()))
			t.row("pinned", yesNo(v.Pinned))
		}
		if v.LUN != nil {
			t.row("target", v.LUN.IQN)
			t.row("lun", v.LUN.LUN)
		}
		t.row("created", v.Created.Local().Format(time.DateTime))
		if len(v.Snapshots) > 0 {
			t.row("snapshots", strings.Join(v.Snapshots, ", "))
		}
		if len(v.Layers) > 1 {
			t.row()
			t.row("LAYER", "SNAPSHOT", "SIZE", "WRITTEN", "ZEROED", "SINCE")
			for _, l := range v.Layers {
				t.row(l.ID, cmp.Or(l.Snapshot, "-"), node.Size(l.Size).Human(), node.Size(l.Written).Human(), node.Size(l.Zeroed).Human(),
					l.Created.Local().Format(time.DateTime))
			}
		}
	})
}

// warnOfSessions says when somebody could write to a volume while it is read.
func (e *env) warnOfSessions(ctx context.Context, a *access, v node.VolumeStatus) error {
	if v.LUN == nil || !a.running {
		return nil
	}
	s, err := a.Status(ctx)
	if err != nil {
		return err
	}
	for _, t := range s.Targets {
		if t.IQN == v.LUN.IQN && len(t.Sessions) > 0 {
			fmt.Fprintf(e.stderr, "skylun: %s is logged in to %s: what it writes to volume %s meanwhile may be in the file in part\n", t.Sessions[0].Initiator, t.IQN, v.Name)
			break
		}
	}
	return nil
}

func (e *env) export(ctx context.Context, a *access, name, path string, force bool) error {
	v, err := a.Volume(ctx, name)
	if err != nil {
		return err
	}
	if err := e.warnOfSessions(ctx, a, v); err != nil {
		return err
	}
	return e.writeFile("volume "+name, path, v.Size, force, func(f func([]byte, int64) error) error { return a.ReadVolume(ctx, name, f) })
}

// writeFile makes a raw, sparse file of what read reads.
func (e *env) writeFile(what, path string, size int64, force bool, read func(func([]byte, int64) error) error) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() { // which is not truncated, and not removed
			return fmt.Errorf("%s is no file but a device or the like; name a file", path)
		}
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists; name another file, or overwrite it with --force", path)
	}
	if err != nil {
		return err
	}
	if err = f.Truncate(size); err == nil {
		p := newProgress(e.stderr, "export "+what)
		err = read(func(b []byte, off int64) error {
			_, err := f.WriteAt(b, off)
			p.update(off+int64(len(b)), size)
			return err
		})
		if err == nil {
			p.update(size, size)
		}
		p.end()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path) // half a disk is of no use
		return err
	}
	return e.done(fmt.Sprintf("%s is in %s: %s", what, path, node.Size(size).Human()))
}
