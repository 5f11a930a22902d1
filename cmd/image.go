package cmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newImage(e *env) *cobra.Command {
	var (
		format     string
		stripes    int
		stripeSize sizeFlag
	)
	imp := &cobra.Command{
		Use:   "import FILE [NAME]",
		Short: "Copy a disk image into the store",
		Long: `Copy a raw disk image, a fixed VHD or an ISO into the store, under NAME or the name
of the file. Parts that are all zeros are skipped. An import that was stopped is
continued by the same command; until it is complete nobody sees the image.

With --stripes N the image is laid over N blobs, and read from all of them at once:
for an image that is larger than one blob can be (8 TiB of Azure's page blobs), or is
read faster than one allows (60 MiB/s).`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			name := filepath.Base(args[0])
			if len(args) > 1 {
				name = args[1]
			}
			return e.importImage(c.Context(), args[0], name, node.ImportOptions{Format: format, Stripes: stripes, StripeSize: node.Size(stripeSize)})
		},
	}
	imp.Flags().StringVar(&format, "format", "auto", "auto, raw, vhd or iso: what the file must be")
	imp.Flags().IntVar(&stripes, "stripes", 1, "lay the image over so many blobs")
	imp.Flags().Var(&stripeSize, "stripe-size", "how much goes into one blob before the next, a power of two (default 256KiB)")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"},
		Short: "List the images in the store",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withStore(c.Context(), func(s *node.Store) error {
				images, err := s.Images(c.Context())
				if err != nil {
					return err
				}
				return e.print(images, func(t *table) {
					if len(images) == 0 {
						t.row("no images in " + s.URL())
						return
					}
					t.row("NAME", "SIZE", "FORMAT", "MODIFIED", "LABEL")
					for _, m := range images {
						t.row(m.Name, node.Size(m.Size).Human(), m.Format, m.Modified.Local().Format(time.DateTime), m.Label)
					}
				})
			})
		},
	}
	show := &cobra.Command{
		Use:   "show NAME",
		Short: "Show one image",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withStore(c.Context(), func(s *node.Store) error {
				m, err := s.Image(c.Context(), args[0])
				if err != nil {
					return err
				}
				return e.printImage(m)
			})
		},
	}
	rm := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove an image from the store",
		Long: `Remove an image from the store, and its local copies. An image that a volume of this
node is an overlay of is not removed; volumes of other nodes are not known here.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return e.removeImage(c.Context(), args[0]) },
	}
	return group("image", "Disk images in the store", imp, list, show, rm)
}

func (e *env) printImage(m node.ImageStatus) error {
	return e.print(m, func(t *table) {
		t.row("name", m.Name)
		t.row("size", fmt.Sprintf("%s (%d bytes)", node.Size(m.Size).Human(), m.Size))
		t.row("format", m.Format)
		if m.Label != "" {
			t.row("label", m.Label)
		}
		t.row("identity", m.Identity)
		t.row("modified", m.Modified.Local().Format(time.DateTime))
		if m.Stripes > 0 {
			t.row("stripes", fmt.Sprintf("%s in turn to each of %s", node.Size(m.StripeSize).Human(), count(m.Stripes, "blob")))
		}
	})
}

func (e *env) importImage(ctx context.Context, file, name string, opts node.ImportOptions) error {
	if opts.Format != "auto" && !slices.Contains(node.ImageFormats(), opts.Format) {
		return usagef("--format %s: want auto, %s", opts.Format, strings.Join(node.ImageFormats(), ", "))
	}
	if strings.HasPrefix(file, "http://") || strings.HasPrefix(file, "https://") {
		return usagef("%s: importing from a URL is not supported yet; download the file and import that", file)
	}
	if err := node.ValidImageName(name); err != nil {
		return usagef("%v; give another NAME", err)
	}
	if opts.Stripes < 1 {
		return usagef("--stripes %d: want 1 or more", opts.Stripes)
	}
	if err := opts.Validate(); err != nil {
		return usagef("%v", err)
	}
	return e.withStore(ctx, func(s *node.Store) error {
		p := newProgress(e.stderr, "import "+name)
		opts.Progress = p.update
		m, err := s.Import(ctx, file, name, opts)
		p.end()
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("import of %s stopped at %s; run the same command again to go on", name, p.reached())
		}
		if err != nil {
			return err
		}
		if e.output == "json" {
			return e.printImage(m)
		}
		return e.print(nil, func(t *table) {
			line := fmt.Sprintf("image %s is in the store: %s, %s", m.Name, node.Size(m.Size).Human(), m.Format)
			if m.Label != "" {
				line += ", " + m.Label
			}
			t.row(line)
		})
	})
}

// removeImage asks the node whether a volume needs the image. Where there is
// no node yet, none does.
func (e *env) removeImage(ctx context.Context, name string) error {
	err := e.with(ctx, false, func(a *access) error { return a.DeleteImage(ctx, name) })
	if errors.Is(err, node.ErrNotRunning) {
		err = e.withStore(ctx, func(s *node.Store) error { return s.DeleteImage(ctx, name) })
	}
	if err != nil {
		return err
	}
	return e.done("image " + name + " is removed")
}

// done reports that something without a result was done.
func (e *env) done(text string) error {
	return e.print(struct {
		Done string `json:"done"`
	}{text}, func(t *table) { t.row(text) })
}
