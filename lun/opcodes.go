package lun

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/gostor/gotgt/pkg/api"
)

// operation is one row of a unit's table: everything that is known about one
// operation code, or one service action of it. Dispatch, REPORT SUPPORTED
// OPERATION CODES and the tests read the same rows.
type operation struct {
	name   string
	usage  []byte // CDB USAGE DATA of SPC-4 6.35.3; its length is the CDB's
	action bool   // it is the service action in usage[1]
	flags  opFlags

	// do executes the command. Its error becomes status and sense data.
	do func(context.Context, *Command) error

	// try, if there is one, is do for the caller that must not wait: done
	// is false when it would have to.
	try func(*Command) (done bool, err error)
}

// opFlags says what is checked before an operation, and where it may run.
type opFlags uint16

const (
	// early operations leave a unit attention pending and run nevertheless,
	// SAM-5 5.14.
	early opFlags = 1 << iota

	// writes is set for operations that change the medium.
	writes

	// inline operations touch no device and do not wait.
	inline

	// shared operations run while another nexus holds the reservation,
	// SPC-2 5.5.
	shared

	// The access class of an operation says which persistent reservations of
	// another nexus keep it from running, SPC-4 5.13.1 and SBC-3 4.17: those
	// that make access to the medium exclusive keep away all but accessAll,
	// those that make writing exclusive keep away accessWrite. An operation
	// has exactly one class.
	accessAll   // by none: INQUIRY, READ CAPACITY, PERSISTENT RESERVE IN
	accessRead  // tells what is on the medium or of its state
	accessWrite // changes the medium, or what others find of the unit
	accessSelf  // the handler decides, by fields of the command

	accessClass = accessAll | accessRead | accessWrite | accessSelf
)

// cdb returns the usage data of an operation code: the code, then the mask
// given in hexadecimal. A bit is set when the unit looks at it.
func cdb(opcode api.SCSICommandType, mask string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(mask, " ", ""))
	if err != nil {
		panic(fmt.Sprintf("usage of opcode %02X: %v", byte(opcode), err))
	}
	return append([]byte{byte(opcode)}, b...)
}

// serviceAction returns the usage data of a service action whose number is in
// byte 1; the mask starts at byte 2.
func serviceAction(opcode, action api.SCSICommandType, mask string) []byte {
	return cdb(opcode, fmt.Sprintf("%02x", byte(action))+mask)
}

// actionMask covers the SERVICE ACTION field in byte 1 of a CDB.
const actionMask = 0x1f

// opTable is a unit's operations, by operation code.
type opTable struct {
	plain   [256]*operation
	actions map[byte][]*operation // of the codes that have service actions
	rows    []operation           // in order of the table
	missing error                 // what other codes end with
}

func newOpTable(rows []operation, missing error) *opTable {
	t := &opTable{actions: make(map[byte][]*operation), rows: rows, missing: missing}
	for i := range rows {
		op := &rows[i]
		code := op.usage[0]
		if op.action {
			t.actions[code] = append(t.actions[code], op)
		} else {
			t.plain[code] = op
		}
	}
	return t
}

// find returns the operation that a CDB asks for. The CDB may be too short
// for it.
func (t *opTable) find(cdb []byte) (*operation, error) {
	if len(cdb) == 0 {
		return nil, t.missing
	}
	if op := t.plain[cdb[0]]; op != nil {
		return op, nil
	}
	actions := t.actions[cdb[0]]
	if actions == nil || len(cdb) < 2 {
		return nil, t.missing
	}
	if op := pick(actions, cdb[1]&actionMask); op != nil {
		return op, nil
	}
	return nil, invalidField(1, 4) // SPC-4 4.2.5.2
}

// has tells whether there are operations of that code.
func (t *opTable) has(code byte) bool { return t.plain[code] != nil || t.actions[code] != nil }

// pick returns the row of a service action, or nil.
func pick(rows []*operation, action byte) *operation {
	for _, op := range rows {
		if op.usage[1]&actionMask == action {
			return op
		}
	}
	return nil
}

// name returns what a log line calls the command of a CDB.
func (t *opTable) name(cdb []byte) string {
	if op, err := t.find(cdb); err == nil {
		return op.name
	}
	return fmt.Sprintf("opcode %02X", cdb[0])
}
