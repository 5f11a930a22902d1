package lun

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
	"github.com/sirupsen/logrus"
)

func sdbOf(n int) *api.SCSIDataBuffer {
	return &api.SCSIDataBuffer{Buffer: make([]byte, n), Length: uint32(n)}
}

// TestSCSILu drives a disk through gotgt's frame, in both directions.
func TestSCSILu(t *testing.T) {
	m := newMemory(1 << 20)
	lu := SCSILu(newTestDisk(quick{m}))
	if lu.Size != 1<<20 || lu.Attrs.DeviceType != api.TYPE_DISK || !strings.HasPrefix(lu.Attrs.SCSISN, "5c1e0f04") {
		t.Errorf("described as %+v", lu)
	}
	run := func(cmd *api.SCSICommand) api.SAMStat {
		t.Helper()
		cmd.Device = lu
		stat := lu.PerformCommand(0, cmd)
		if stat.Stat != cmd.Result {
			t.Errorf("% x: returned %02x, result %02x", cmd.SCB, stat.Stat, cmd.Result)
		}
		return stat
	}

	w := &api.SCSICommand{SCB: extentCDB(0x2a, 0, 1, 2), SCBLength: 10, OutSDBBuffer: sdbOf(1024)}
	copy(w.OutSDBBuffer.Buffer, filled(1024, 'w'))
	if stat := run(w); stat != api.SAMStatGood || w.OutSDBBuffer.Resid != 1024 {
		t.Errorf("write: %v, moved %d", stat, w.OutSDBBuffer.Resid)
	}
	r := &api.SCSICommand{SCB: append(extentCDB(0x28, 0, 1, 2), make([]byte, 6)...), SCBLength: 16, InSDBBuffer: sdbOf(2048)}
	if stat := run(r); stat != api.SAMStatGood || r.InSDBBuffer.Resid != 1024 || r.InSDBBuffer.TransferLength != 1024 || !bytes.Equal(r.InSDBBuffer.Buffer[:1024], filled(1024, 'w')) {
		t.Errorf("read: %v, %+v", stat, r.InSDBBuffer)
	}
	e := &api.SCSICommand{SCB: extentCDB(0x28, 0, 1<<20, 2), InSDBBuffer: sdbOf(1024)}
	if stat := run(e); stat != api.SAMStatCheckCondition || e.SenseBuffer == nil || e.SenseBuffer.Buffer[2] != scsi.ILLEGAL_REQUEST || e.SenseBuffer.Length != 18 {
		t.Errorf("read beyond the end: %v, sense %+v", stat, e.SenseBuffer)
	}
	if stat := run(&api.SCSICommand{SCB: []byte{0, 0, 0, 0, 0, 0}, SenseBuffer: &api.SenseBuffer{}}); stat != api.SAMStatGood {
		t.Errorf("TEST UNIT READY: %v", stat)
	}
}

// TestSCSILuHostile checks short buffers, buffers that lie and CDBs of any
// length, SAM-5 5.3.1.
func TestSCSILuHostile(t *testing.T) {
	m := newMemory(1 << 20)
	lu := SCSILu(newTestDisk(m))
	buffers := []*api.SCSIDataBuffer{
		nil, {}, {Length: 512}, {Buffer: make([]byte, 512)}, {Buffer: make([]byte, 100), Length: 512},
		{Buffer: make([]byte, 4096), Length: 100}, {Buffer: make([]byte, 4096), Length: 1<<32 - 1},
	}
	for code := range 256 {
		for _, n := range []int{0, 1, 5, 6, 10, 16, 260} {
			for _, b := range buffers {
				for _, length := range []int{0, -1, 3, 1000} {
					scb := make([]byte, n)
					if n > 0 {
						scb[0] = byte(code)
					}
					if n > 8 {
						scb[8] = 4
					}
					stat := lu.PerformCommand(0, &api.SCSICommand{SCB: scb, SCBLength: length, InSDBBuffer: b, OutSDBBuffer: b})
					if stat != api.SAMStatGood && stat != api.SAMStatConditionMet && stat != api.SAMStatCheckCondition && stat != api.SAMStatReservationConflict {
						t.Fatalf("% x: %v", scb, stat)
					}
				}
			}
		}
	}
	if len(m.wrong) > 0 {
		t.Errorf("beyond the end: %q", m.wrong)
	}
	for s := range 256 {
		if got := samStat(Status(s)); got.Stat != byte(s) {
			t.Errorf("status %02x becomes %02x", s, got.Stat)
		}
	}
}

// TestRouteGotgtLog checks that gotgt's lines arrive at their level.
func TestRouteGotgtLog(t *testing.T) {
	var out bytes.Buffer
	t.Cleanup(func() { RouteGotgtLog(slog.New(slog.DiscardHandler)) })
	RouteGotgtLog(slog.New(slog.DiscardHandler)) // the last call counts
	RouteGotgtLog(slog.New(slog.NewTextHandler(&out, nil)))
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { logrus.Debug("x") }, ""},
		{func() { logrus.Info("x") }, "level=INFO msg=x from=gotgt"},
		{func() { logrus.WithContext(t.Context()).Warn("x") }, "level=WARN msg=x from=gotgt"},
		{func() { logrus.WithField("b", 1).WithField("a", 2).Error("x") }, "level=ERROR msg=x a=2 b=1 from=gotgt"},
	} {
		out.Reset()
		c.write()
		if got := out.String(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") || strings.Count(got, "\n") > 1 {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for level, want := range map[logrus.Level]slog.Level{
		logrus.TraceLevel: slog.LevelDebug, logrus.FatalLevel: slog.LevelError, logrus.PanicLevel: slog.LevelError,
	} {
		if got := slogLevel(level); got != want {
			t.Errorf("%v becomes %v", level, got)
		}
	}
}
