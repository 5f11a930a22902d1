package lun

import (
	"context"
	"log/slog"

	"skylun/block"
)

// DiskConfig says what a disk is, apart from the bytes it holds.
type DiskConfig struct {
	Name     string   // of the volume, for log lines
	ID       [16]byte // identity of the volume: serial number and NAA designator are derived from it
	ReadOnly bool     // refuse every command that changes the medium
}

// Disk is a direct access block device (SBC-3) over a block.Device.
type Disk struct {
	dev block.Device
	cfg DiskConfig
	log *slog.Logger
}

var _ Unit = (*Disk)(nil)

// NewDisk returns the unit that shows dev as a disk. The caller closes dev
// after the last command has ended.
func NewDisk(dev block.Device, cfg DiskConfig, log *slog.Logger) *Disk {
	return &Disk{dev: dev, cfg: cfg, log: log}
}

// Try implements Unit.
func (d *Disk) Try(c *Command) bool { return false }

// Execute implements Unit.
func (d *Disk) Execute(ctx context.Context, c *Command) {}

// Attach implements Unit.
func (d *Disk) Attach(n *Nexus) {}

// Detach implements Unit.
func (d *Disk) Detach(n *Nexus) {}
