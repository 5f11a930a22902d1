package lun

import (
	"context"
	"log/slog"

	"github.com/gostor/gotgt/pkg/scsi"
)

// vacancy answers for logical unit numbers that have no unit: with INQUIRY
// data that say so, with the inventory, and with LOGICAL UNIT NOT SUPPORTED to
// everything else (SAM-5 5.11). The well known logical unit is made of the
// same stuff. No nexus is ever attached to either.
type vacancy struct{ server }

var _ Unit = (*vacancy)(nil)

// Peripheral device types of units that are none, SPC-4 6.6.2.
const (
	typeWellKnown = 0x1e
	typeUnknown   = 0x1f
)

func newVacancy(peripheral byte) *vacancy {
	v := makeVacancy(peripheral)
	v.serve([]operation{
		v.inquiryOp(),
		v.reportLUNsOp(),
		v.requestSenseOp(func(*Command) *condition { return errNoSuchUnit }),
	}, errNoSuchUnit)
	return v
}

// newWellKnown returns the REPORT LUNS well known logical unit, SPC-4 8.2.
func newWellKnown() *vacancy {
	v := makeVacancy(scsi.PQ_DEVICE_CONNECTED | typeWellKnown)
	v.pages = append(v.pages, v.portIdentification())
	v.serve([]operation{
		v.inquiryOp(),
		v.reportLUNsOp(),
		v.requestSenseOp(func(*Command) *condition { return nil }),
		v.testUnitReadyOp(func(context.Context, *Command) error { return nil }),
	}, errInvalidOpcode)
	return v
}

func makeVacancy(peripheral byte) *vacancy {
	v := &vacancy{}
	v.unit = v
	v.log = slog.Default() // it belongs to no volume whose logger it could take
	v.peripheral = peripheral
	v.versions = commonVersions
	v.id = identity{vendor: vendorID, product: "TARGET", revision: revision}
	v.pages = []vpdPage{v.supportedPages()}
	return v
}
