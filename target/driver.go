package target

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/lun"
)

// DriverName is the name of this transport among gotgt's target drivers.
const DriverName = "skylun"

// gotgt's registries are process-wide maps without locks, to be filled in init
// functions. Its targets want a "null" backing store for the LUN 0 they make
// up; a program that links gotgt's backing stores has one already, or replaces
// this one, which is never opened here.
func init() {
	scsi.RegisterTargetDriver(DriverName, newDriver)
	if _, err := scsi.NewBackingStore("null"); err != nil {
		scsi.RegisterBackingStore("null", func() (api.BackingStore, error) { return nullStore{}, nil })
	}
}

// driver is a Server as gotgt knows transports. Its targets have the logical
// units that gotgt's service has in SCSITarget.Devices, whoever put them there:
// gotgt's own LUN map, or the program, with lun.SCSILu. Commands go to
// api.SCSILu.PerformCommand; the command queue of the service is not used.
type driver struct {
	service *scsi.SCSITargetService
	log     *slog.Logger

	mu      sync.Mutex
	targets map[string]*api.SCSITarget
	units   map[string]*lun.Map
	server  *Server // while Run runs
	closed  bool
}

var _ scsi.SCSITargetDriver = (*driver)(nil)

// newDriver returns the driver for a service of gotgt; nil stands for one of
// its own, apart from gotgt's process-wide one.
func newDriver(service *scsi.SCSITargetService) (scsi.SCSITargetDriver, error) {
	if service == nil {
		service = &scsi.SCSITargetService{}
	}
	return &driver{
		service: service, log: slog.Default(),
		targets: make(map[string]*api.SCSITarget), units: make(map[string]*lun.Map),
	}, nil
}

// NewTarget adds a target. It has the units that gotgt's LUN map has for that
// name. The portals of the configuration are not used: gotgt's drivers listen
// where Run says.
func (d *driver) NewTarget(name string, _ *config.Config) error {
	if err := ValidIQN(name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.targets[name] != nil {
		return fmt.Errorf("target %s: there is one of that name", name)
	}
	t, err := d.service.NewSCSITarget(len(d.targets), DriverName, name)
	if err != nil {
		return fmt.Errorf("target %s: %w", name, err)
	}
	d.targets[name], d.units[name] = t, lun.NewMap()
	if d.server != nil {
		d.sync(name)
		return d.server.AddTarget(Target{Name: name, Units: d.units[name]})
	}
	return nil
}

// Run serves on a port of all addresses until Close is called.
func (d *driver) Run(port int) error {
	s, err := New(Config{Portals: At(net.JoinHostPort("::", strconv.Itoa(port)))}, d.log)
	if err != nil {
		return err
	}
	d.mu.Lock()
	for name, units := range d.units {
		d.sync(name)
		if err := s.AddTarget(Target{Name: name, Units: units}); err != nil {
			d.mu.Unlock()
			return err
		}
	}
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	err = s.Listen()
	d.server = s
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return s.Serve(context.Background())
}

// sync makes the units of a target those that gotgt has for it. d.mu is held.
func (d *driver) sync(name string) {
	t, units := d.targets[name], d.units[name]
	for _, n := range units.LUNs() {
		units.Remove(n)
	}
	for n, lu := range t.Devices {
		if n > lun.MaxLUN || lu == nil {
			continue
		}
		if err := units.Add(uint16(n), &gotgtUnit{target: t, lu: lu, number: n}); err != nil {
			d.log.Error("logical unit of gotgt left out", "target", name, "err", err)
		}
	}
}

// RereadTargetLUNMap makes the units of all targets what gotgt's LUN map says
// now.
func (d *driver) RereadTargetLUNMap() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.service.RereadTargetLUNMap()
	for name := range d.targets {
		d.sync(name)
	}
}

// Close stops serving, after the commands in flight have ended if that does
// not take long.
func (d *driver) Close() error {
	d.mu.Lock()
	s := d.server
	d.closed = true
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.Shutdown(ctx)
}

// Resize sets the size of all units, as gotgt does it.
func (d *driver) Resize(size uint64) error { return d.service.Resize(size) }

// Stats returns what of gotgt's figures is known here.
func (d *driver) Stats() scsi.Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return scsi.Stats{}
	}
	return scsi.Stats{IsClientConnected: len(d.server.Sessions()) > 0}
}

// SetClusterIP is not supported: discovery answers with the address that the
// initiator has used.
func (d *driver) SetClusterIP(ip string) {
	d.log.Warn("cluster address is not used", "address", ip)
}

// EnableBlockMultipleHostLogin is not supported: targets have lists of
// initiators instead.
func (d *driver) EnableBlockMultipleHostLogin() {
	d.log.Warn("logins of several hosts are not blocked")
}

// gotgtUnit is a logical unit of gotgt. Its commands are executed one at a
// time: gotgt's backing stores are used to that.
type gotgtUnit struct {
	mu     sync.Mutex
	target *api.SCSITarget
	lu     *api.SCSILu
	number uint64
}

func (u *gotgtUnit) Attach(*lun.Nexus)     {}
func (u *gotgtUnit) Detach(*lun.Nexus)     {}
func (u *gotgtUnit) Try(*lun.Command) bool { return false }

// Execute has the unit perform c. gotgt cannot be interrupted. Where it says
// nothing about the length of the Data-In it means the whole buffer.
func (u *gotgtUnit) Execute(_ context.Context, c *lun.Command) {
	cmd := &api.SCSICommand{
		OpCode: c.CDB[0], SCB: c.CDB, SCBLength: len(c.CDB), Target: u.target, Device: u.lu,
		InSDBBuffer: &api.SCSIDataBuffer{}, OutSDBBuffer: &api.SCSIDataBuffer{},
		RelTargetPortID: defaultGroup, Lun: [8]byte{byte(u.number >> 8), byte(u.number)},
	}
	switch {
	case c.InLimit > 0:
		in := c.Alloc.Get(min(c.InLimit, gotgtTransfer))
		clear(in)
		cmd.Direction = api.SCSIDataRead
		cmd.InSDBBuffer = &api.SCSIDataBuffer{Buffer: in, Length: uint32(len(in))}
	case len(c.Out) > 0:
		cmd.Direction = api.SCSIDataWrite
		cmd.OutSDBBuffer = &api.SCSIDataBuffer{Buffer: c.Out, Length: uint32(len(c.Out))}
	}
	u.mu.Lock()
	result := u.lu.PerformCommand(u.target.TID, cmd)
	u.mu.Unlock()

	c.Status = lun.Status(result.Stat)
	if c.Status == lun.StatusGood {
		c.Status = lun.Status(cmd.Result)
	}
	if s := cmd.SenseBuffer; s != nil && c.Status == lun.StatusCheckCondition {
		c.Sense = s.Buffer[:min(int(s.Length), len(s.Buffer), lun.MaxSense)]
	}
	if c.Status != lun.StatusGood {
		return
	}
	c.Transfer = int64(len(c.Out))
	if in := cmd.InSDBBuffer; len(in.Buffer) > 0 {
		c.In, c.Transfer = in.Buffer, int64(len(in.Buffer))
		if in.Resid > 0 {
			c.Transfer = int64(in.Resid)
			c.In = in.Buffer[:min(int(in.Resid), len(in.Buffer))]
		}
	}
}

// gotgtTransfer is the most Data-In of one command for gotgt.
const gotgtTransfer = 8 << 20

// nullStore is a backing store that holds nothing.
type nullStore struct{}

func (nullStore) Open(*api.SCSILu, string) error         { return nil }
func (nullStore) Close(*api.SCSILu) error                { return nil }
func (nullStore) Init(*api.SCSILu, string) error         { return nil }
func (nullStore) Exit(*api.SCSILu) error                 { return nil }
func (nullStore) Size(*api.SCSILu) uint64                { return 0 }
func (nullStore) Read(int64, int64) ([]byte, error)      { return nil, nil }
func (nullStore) Write([]byte, int64) error              { return nil }
func (nullStore) DataSync(int64, int64) error            { return nil }
func (nullStore) DataAdvise(int64, int64, uint32) error  { return nil }
func (nullStore) Unmap([]api.UnmapBlockDescriptor) error { return nil }
