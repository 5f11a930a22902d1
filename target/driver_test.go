package target

import (
	"bytes"
	"context"
	"net"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/lun"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// A program that uses gotgt finds the transport by its name, and gives it
// units as it gives them to gotgt's own.
func TestDriver(t *testing.T) {
	service := &scsi.SCSITargetService{}
	d, err := scsi.NewTargetDriver(DriverName, service)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.NewTarget(testTarget, nil); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{testTarget, "nonsense"} {
		if err := d.NewTarget(bad, nil); err == nil {
			t.Errorf("target %s was added", bad)
		}
	}
	if len(service.Targets) != 1 {
		t.Fatalf("the service has %d targets", len(service.Targets))
	}
	dev := memdev.New(1 << 20)
	foreign := &api.SCSILu{PerformCommand: foreignUnit}
	service.Targets[0].Devices = api.LUNMap{0: lun.SCSILu(disk(t, dev)), 3: foreign}

	port := freePort(t)
	ran := make(chan error, 1)
	go func() { ran <- d.Run(port) }()
	var conn *initiator.Conn
	eventually(t, "the driver listens", func() bool {
		conn, err = initiator.Dial((&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
		return err == nil
	})
	defer conn.Close()
	mustLogin(t, conn)
	if !d.Stats().IsClientConnected {
		t.Error("Stats knows of no client")
	}

	data := content(100 << 9)
	remote, err := conn.Disk(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteAt(t.Context(), data, 7<<9); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := remote.ReadAt(t.Context(), got, 7<<9); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back: %v, equal: %t", err, bytes.Equal(got, data))
	}
	if err := dev.ReadAt(context.Background(), got, 7<<9); err != nil || !bytes.Equal(got, data) {
		t.Error("the device holds something else")
	}
	if r, err := conn.Do(0, []byte{0: 0xff, 15: 0}, 0, nil); err != nil || r.Key() != 0x052000 {
		t.Errorf("unknown opcode: sense %06x, %v", r.Key(), err)
	}

	r, err := conn.Do(3, []byte{0: 0x12, 4: 96, 5: 0}, 96, nil)
	if err != nil || string(r.Data) != "foreign" || r.Residual != 89 {
		t.Errorf("unit of somebody else: %q, residual %d, %v", r.Data, r.Residual, err)
	}
	if r, err := conn.Do(3, make([]byte, 6), 0, nil); err != nil || r.Key() != 0x023a00 {
		t.Errorf("unit of somebody else: sense %06x, %v", r.Key(), err)
	}

	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// foreignUnit is how gotgt's own units answer.
func foreignUnit(_ int, cmd *api.SCSICommand) api.SAMStat {
	if cmd.OpCode != 0x12 {
		cmd.SenseBuffer = &api.SenseBuffer{Buffer: fixedSense(2, 0x3a, 0), Length: 18}
		return api.SAMStatCheckCondition
	}
	cmd.InSDBBuffer.Resid = uint32(copy(cmd.InSDBBuffer.Buffer, "foreign"))
	return api.SAMStatGood
}

// Units that gotgt's map gets or loses later.
func TestDriverRereads(t *testing.T) {
	drv, err := newDriver(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := drv.NewTarget(testTarget+"-reread", nil); err != nil {
		t.Fatal(err)
	}
	d := drv.(*driver)
	d.targets[testTarget+"-reread"].Devices = api.LUNMap{5: lun.SCSILu(giver(nil, 0, 0)), 1 << 20: lun.SCSILu(giver(nil, 0, 0)), 6: nil}
	d.mu.Lock()
	d.sync(testTarget + "-reread")
	d.mu.Unlock()
	if got := d.units[testTarget+"-reread"].LUNs(); len(got) != 1 || got[0] != 5 {
		t.Errorf("units %v", got)
	}
	d.RereadTargetLUNMap() // gotgt's map has nothing for that name
	if got := d.units[testTarget+"-reread"].LUNs(); len(got) != 0 {
		t.Errorf("units %v", got)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Run(freePort(t)); err != nil {
		t.Errorf("Run after Close: %v", err)
	}
}
