package lun

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const scsiPage = "../docs/scsi.md"

var rewrite = flag.Bool("rewrite", false, "write the tables of docs/scsi.md anew")

// partlyDisk says what of a command is refused, in the words of docs/scsi.md. What
// is not here is all there, as far as it applies to a disk without protection
// information or to a drive for what it lets in.
var partlyDisk = map[string]string{
	"RESERVE(6)":                       "the whole unit; extents and third parties are refused",
	"RELEASE(6)":                       "the whole unit; extents and third parties are refused",
	"LOG SENSE":                        "current values; nothing is counted, saved or reset",
	"SEND DIAGNOSTIC":                  "self-tests, which read from the device; a background test is over before the command is",
	"RECEIVE DIAGNOSTIC RESULTS":       "the list of pages",
	"START STOP UNIT":                  "stops the disk for the initiator that asks, not for others; there are no timers",
	"PREVENT ALLOW MEDIUM REMOVAL":     "taken, and means nothing: the medium stays",
	"FORMAT UNIT":                      "erases all; no defect lists, no protection information",
	"SANITIZE BLOCK ERASE":             "erases all that is local; an image below stays in the store",
	"READ DEFECT DATA(10)":             "there are none",
	"READ DEFECT DATA(12)":             "there are none",
	"WRITE SAME(10)":                   "not to the end of the disk with a length of zero; no anchors",
	"WRITE SAME(16)":                   "not to the end of the disk with a length of zero; no anchors",
	"REPORT TARGET PORT GROUPS":        "access states change by the server alone",
	"EXTENDED COPY(LID1)":              "block to block, between disks that the initiator could use itself",
	"POPULATE TOKEN":                   "a token stands for the data of that moment, and is revoked by the first command that changes any of it",
	"WRITE USING TOKEN":                "tokens of disks that the initiator could use itself; the zero token",
	"REPORT SUPPORTED OPERATION CODES": "no timeouts are recommended",
}

// partlyDrive is that for a drive.
var partlyDrive = map[string]string{
	"RESERVE(6)":           partlyDisk["RESERVE(6)"],
	"RELEASE(6)":           partlyDisk["RELEASE(6)"],
	"SEND DIAGNOSTIC":      "the default self-test, which has nothing to find",
	"WRITE(10)":            "refused with 7/27/00",
	"WRITE AND VERIFY(10)": "refused with 7/27/00",
}

// Names of the pages, by their code in two digits.
var (
	vpdNames = map[string]string{
		"00": "Supported VPD Pages", "80": "Unit Serial Number", "83": "Device Identification: NAA, T10 vendor, port, port group, target",
		"86": "Extended INQUIRY Data", "87": "Mode Page Policy: all shared", "88": "SCSI Ports", "8f": "Third-Party Copy",
		"b0": "Block Limits", "b1": "Block Device Characteristics: solid state", "b2": "Logical Block Provisioning: thin",
	}
	modeNames = map[string]string{
		"00": "vendor specific: empty, old versions of Windows ask for it", "01": "Read-Write Error Recovery", "08": "Caching", "0a": "Control", "0a/01": "Control Extension",
		"0d": "CD Device Parameters", "0e": "CD Audio Control", "1a": "Power Condition", "1c": "Informational Exceptions Control", "1d": "Timeout and Protect", "2a": "MM Capabilities and Mechanical Status",
	}
	logNames = map[string]string{
		"00": "Supported Log Pages", "0c": "Logical Block Provisioning: space left and used, in MiB",
		"10": "Self-Test Results", "2f": "Informational Exceptions: none, and no temperature",
	}
)

// TestSCSIPage checks that the tables of docs/scsi.md say what the code does.
func TestSCSIPage(t *testing.T) {
	disk := NewDisk(able{quick{newMemory(1 << 20)}}, DiskConfig{Name: "vol", Store: &shelf{}}, discardLog)
	drive := NewCDROM(CDROMConfig{Name: "drive"}, discardLog)
	tables := map[string]string{
		"disk commands":  commandTable(t, &disk.server, partlyDisk),
		"drive commands": commandTable(t, &drive.server, partlyDrive),
		"VPD pages":      pageTable(t, vpdNames, vpdCodes(&disk.server), vpdCodes(&drive.server)),
		"mode pages":     pageTable(t, modeNames, modeCodes(&disk.server), modeCodes(&drive.server)),
		"log pages":      pageTable(t, logNames, logCodes(&disk.server), nil),
	}
	old, err := os.ReadFile(scsiPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(old)
	for name, table := range tables {
		block := regexp.MustCompile(`(?s)(<!-- ` + name + ` -->\n).*?(<!-- end -->\n)`)
		if !block.MatchString(page) {
			t.Errorf("%s has no place for the %s", scsiPage, name)
		}
		page = block.ReplaceAllString(page, "${1}"+table+"${2}")
	}
	if page == string(old) {
		return
	}
	if !*rewrite {
		t.Fatalf("%s is stale: go test ./lun -run TestSCSIPage -rewrite", scsiPage)
	}
	if err := os.WriteFile(scsiPage, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commandTable returns the operations of a unit as a table.
func commandTable(t *testing.T, s *server, partly map[string]string) string {
	for name := range partly {
		if !slices.ContainsFunc(s.ops.rows, func(op operation) bool { return op.name == name }) {
			t.Errorf("there is no command %q to say something of", name)
		}
	}
	rows := slices.SortedFunc(slices.Values(s.ops.rows), func(a, b operation) int {
		return cmp.Or(cmp.Compare(a.usage[0], b.usage[0]), cmp.Compare(a.usage[1]&actionMask, b.usage[1]&actionMask))
	})
	var b strings.Builder
	b.WriteString("| code | command | | runs while another initiator reserves |\n|---|---|---|---|\n")
	for _, op := range rows {
		code := fmt.Sprintf("%02X", op.usage[0])
		if op.action {
			code += fmt.Sprintf("/%02X", op.usage[1]&actionMask)
		}
		level := "yes"
		if note := partly[op.name]; note != "" {
			level = note
		}
		reserved := map[opFlags]string{
			accessAll: "always", accessRead: "unless access is exclusive", accessWrite: "never", accessSelf: "depends on its fields",
		}[op.flags&accessClass]
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code, op.name, level, reserved)
	}
	return b.String()
}

// pageTable returns the pages of disk and drive as a table.
func pageTable(t *testing.T, names map[string]string, disk, drive []string) string {
	var b strings.Builder
	b.WriteString("| page | | disk | drive |\n|---|---|---|---|\n")
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(disk, drive))))
	for _, code := range all {
		if names[code] == "" {
			t.Errorf("page %s has no name", code)
		}
		has := func(codes []string) string {
			if slices.Contains(codes, code) {
				return "yes"
			}
			return ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.ToUpper(code), names[code], has(disk), has(drive))
	}
	return b.String()
}

func vpdCodes(s *server) (codes []string) {
	for _, p := range s.pages {
		codes = append(codes, fmt.Sprintf("%02x", p.code))
	}
	return codes
}

func modeCodes(s *server) (codes []string) {
	for _, p := range s.modes.pages {
		code, sub, _ := modeCode(p.defaults)
		name := fmt.Sprintf("%02x", code)
		if sub != 0 {
			name += fmt.Sprintf("/%02x", sub)
		}
		codes = append(codes, name)
	}
	return codes
}

func logCodes(s *server) []string {
	codes := []string{"00"}
	for _, p := range s.logs {
		codes = append(codes, fmt.Sprintf("%02x", p.code))
	}
	return codes
}
