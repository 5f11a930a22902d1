package cmd

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newCDROM(e *env) *cobra.Command {
	var spec node.MediaSpec
	insert := &cobra.Command{
		Use:   "insert TARGET LUN IMAGE [--any] [--force]",
		Short: "Put an image into a CD-ROM drive",
		Long: `Put an image of the store into a CD-ROM drive, in place of what is in it. A guest that
uses that keeps the tray locked: it is asked to eject and has five seconds for it. With
--force the medium is changed at once, and the guest finds another one in its place.
What is in a drive stays there when the node is restarted.`,
		Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := lunNumber(args[1])
			if err != nil {
				return err
			}
			spec.Image = args[2]
			return e.with(c.Context(), false, func(a *access) error {
				l, err := a.InsertMedia(c.Context(), args[0], number, spec)
				if err != nil {
					return err
				}
				return e.printDrive(l)
			})
		},
	}
	insert.Flags().BoolVar(&spec.Any, "any", false, "insert an image that is no ISO, too")
	insert.Flags().BoolVar(&spec.Force, "force", false, "although a guest has locked the tray")
	var force bool
	eject := &cobra.Command{
		Use:   "eject TARGET LUN [--force]",
		Short: "Take out what is in a CD-ROM drive",
		Long: `Take out what is in a CD-ROM drive and leave its tray open. A guest that uses the medium
keeps the tray locked: it is asked to eject and has five seconds for it. With --force
the medium is taken out at once.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := lunNumber(args[1])
			if err != nil {
				return err
			}
			return e.with(c.Context(), false, func(a *access) error {
				l, err := a.EjectMedia(c.Context(), args[0], number, force)
				if err != nil {
					return err
				}
				return e.printDrive(l)
			})
		},
	}
	eject.Flags().BoolVar(&force, "force", false, "although a guest has locked the tray")
	return group("cdrom", "Media in CD-ROM drives", insert, eject)
}

// lunNumber reads a logical unit number.
func lunNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, usagef("%q is not a LUN, a number from 0 on", s)
	}
	return n, nil
}

func (e *env) printDrive(l node.LUNStatus) error {
	return e.print(l, func(t *table) {
		t.row(fmt.Sprintf("drive %s: %s", l.Drive, driveText(l)))
	})
}

// driveText says what is in a drive.
func driveText(l node.LUNStatus) string {
	text := "empty"
	if l.Image != "" {
		text = l.Image
		if l.Label != "" {
			text += " (" + l.Label + ")"
		}
	}
	if l.Tray == "open" {
		text += ", tray open"
	}
	if len(l.LockedBy) > 0 {
		text += ", locked"
	}
	if l.Problem != "" {
		text += "; " + l.Problem
	}
	return text
}
