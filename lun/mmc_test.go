package lun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// reply is a command and what it has to answer, with every allocation length.
type reply struct {
	cdb    string // ends in an allocation length of 16 bits at lengthAt, and CONTROL
	ending string
	data   string
}

// checkReplies runs commands as they are, and again with every shorter
// allocation length and Data-In limit.
func checkReplies(t *testing.T, u Unit, lengthAt int, replies []reply) {
	t.Helper()
	for _, r := range replies {
		want := unhex(t, r.data)
		c := send(t, u, nil, r.cdb, nil)
		wantEnding(t, c, r.ending)
		if !bytes.Equal(c.In, want) {
			t.Errorf("%s:\n% x, want\n% x", r.cdb, c.In, want)
		}
		for n := range len(c.In) {
			cdb := unhex(t, r.cdb)
			binary.BigEndian.PutUint16(cdb[lengthAt:], uint16(n))
			c := exec(t, u, &Command{CDB: cdb, InLimit: 1 << 16})
			if wantEnding(t, c, "00"); !bytes.Equal(c.In, want[:n]) || c.Transfer != int64(n) {
				t.Errorf("%s with an allocation length of %d: % x", r.cdb, n, c.In)
			}
			c = exec(t, u, &Command{CDB: unhex(t, r.cdb), InLimit: n})
			if wantEnding(t, c, "00"); !bytes.Equal(c.In, want[:n]) || c.Transfer != int64(len(want)) {
				t.Errorf("%s with room for %d: % x", r.cdb, n, c.In)
			}
		}
	}
}

// discOf returns a drive with a disc of so many sectors.
func discOf(sectors int64) *CDROM { return newTestDrive(vast(sectors * sectorSize)) }

// TestReadTOC checks READ TOC/PMA/ATIP, MMC-6 6.25. Sector 12345 is at 02:46:45.
func TestReadTOC(t *testing.T) {
	checkReplies(t, discOf(12345), 7, []reply{
		{"43 00 00 000000 00 0100 00", "00", "0012 01 01  00 14 01 00 00000000  00 14 aa 00 00003039"},
		{"43 00 00 000000 01 0100 00", "00", "0012 01 01  00 14 01 00 00000000  00 14 aa 00 00003039"},
		{"43 00 00 000000 aa 0100 00", "00", "000a 01 01  00 14 aa 00 00003039"},
		{"43 02 00 000000 00 0100 00", "00", "0012 01 01  00 14 01 00 00000200  00 14 aa 00 00022e2d"},
		{"43 00 00 000000 02 0100 00", "02 5/24/00", ""},
		{"43 00 01 000000 00 0100 00", "00", "000a 01 01  00 14 01 00 00000000"},
		{"43 02 01 000000 00 0100 00", "00", "000a 01 01  00 14 01 00 00000200"},
		{"43 00 00 000000 00 0100 40", "00", "000a 01 01  00 14 01 00 00000000"}, // as old initiators ask
		{"43 02 02 000000 01 0100 00", "00", "002e 01 01" +
			"01 14 00 a0 000000 00 01 00 00" + "01 14 00 a1 000000 00 01 00 00" +
			"01 14 00 a2 000000 00 02 2e 2d" + "01 14 00 01 000000 00 00 02 00"},
		{"43 00 00 000000 00 0100 80", "00", "002e 01 01" +
			"01 14 00 a0 000000 00 01 00 00" + "01 14 00 a1 000000 00 01 00 00" +
			"01 14 00 a2 000000 00 02 2e 2d" + "01 14 00 01 000000 00 00 02 00"},
		{"43 00 02 000000 02 0100 00", "02 5/24/00", ""},
		{"43 00 03 000000 00 0100 00", "02 5/24/00", ""},
		{"43 00 04 000000 00 0100 00", "02 5/24/00", ""},
		{"43 00 05 000000 00 0100 00", "02 5/24/00", ""},
		{"43 00 0f 000000 00 0100 00", "02 5/24/00", ""},
	})
	// On a disc whose end is too far out for minutes.
	checkReplies(t, discOf(2295104), 7, []reply{
		{"43 00 00 000000 aa 0100 00", "00", "000a 01 01  00 14 aa 00 00230540"},
		{"43 02 00 000000 aa 0100 00", "00", "000a 01 01  00 14 aa 00 00ff3b4a"},
	})
}

// TestDiscInformation checks READ DISC INFORMATION, READ TRACK INFORMATION and
// READ SUB-CHANNEL.
func TestDiscInformation(t *testing.T) {
	d := discOf(0x1234)
	track := "0022 01 01 00 04 01 00 00000000 00000000 00000000 00000000 00001234 00000000 00000000"
	checkReplies(t, d, 7, []reply{
		{"51 00 00 00000000 0100 00", "00", "0020 0e 01 01 01 01 20 00000000 00000000 ffffffff ffffffff 0000000000000000 00 00"},
		{"51 01 00 00000000 0100 00", "02 5/24/00", ""},
		{"52 00 00000000 00 0100 00", "00", track},
		{"52 00 00001233 00 0100 00", "00", track},
		{"52 00 00001234 00 0100 00", "02 5/21/00", ""},
		{"52 00 ffffffff 00 0100 00", "02 5/21/00", ""},
		{"52 01 00000001 00 0100 00", "00", track},
		{"52 01 00000000 00 0100 00", "02 5/24/00", ""},
		{"52 01 000000ff 00 0100 00", "02 5/24/00", ""},
		{"52 02 00000001 00 0100 00", "00", track},
		{"52 03 00000001 00 0100 00", "02 5/24/00", ""},
		{"52 05 00000001 00 0100 00", "02 5/24/00", ""},
		{"42 00 00 00 0000 00 0100 00", "00", "00 15 0000"},
		{"42 00 40 01 0000 00 0100 00", "00", "00 15 000c 01 14 01 01 00000000 00000000"},
		{"42 02 40 01 0000 00 0100 00", "00", "00 15 000c 01 14 01 01 00000200 00000200"},
		{"42 00 40 02 0000 00 0100 00", "00", "00 15 0014 02 00000000000000000000000000000000000000"},
		{"42 00 40 03 0000 01 0100 00", "00", "00 15 0014 03 14 01 0000000000000000000000000000000000"},
		{"42 00 40 03 0000 02 0100 00", "02 5/24/00", ""},
		{"42 00 40 04 0000 00 0100 00", "02 5/24/00", ""},
	})
}

// TestConfiguration checks GET CONFIGURATION, MMC-6 6.5: the profiles by the
// size of the disc, and what is current with each.
func TestConfiguration(t *testing.T) {
	counted := func(data string) string { return fmt.Sprintf("%08x", len(unhex(t, data))) + data }
	const head = "0001 0b 08 00000001 03000000" + "0002 07 04 02000000" + "0003 0b 04 39000000"
	const tail = "0100 03 00" + "0105 07 04 00000000"
	serial := fmt.Sprintf("0108 03 20 %x", fmt.Sprintf("%x", testID))
	for _, c := range []struct {
		drive                  *CDROM
		profile, media         string // the profile list's and the header's
		cdRead, media2, stream string
	}{
		{newTestDrive(nil), "0000 0000", "00100000 00080000", "001e 08 04 00000000",
			"0010 00 08 00000800 0001 01 00" + "001d 00 00" + "001e 08 04 00000000" + "001f 04 04 00000000", "0107 10 04 1c000000"},
		{discOf(maxCDSectors), "0000 0008", "00100000 00080100", "001e 09 04 00000000",
			"0010 01 08 00000800 0001 01 00" + "001d 01 00" + "001e 09 04 00000000" + "001f 04 04 00000000", "0107 11 04 1c000000"},
		{discOf(maxCDSectors + 1), "0000 0010", "00100100 00080000", "001e 08 04 00000000",
			"0010 01 08 00000800 0010 01 00" + "001d 00 00" + "001e 08 04 00000000" + "001f 05 04 00000000", "0107 11 04 1c000000"},
	} {
		checkReplies(t, c.drive, 7, []reply{
			{"46 00 0000 000000 0200 00", "00", counted(c.profile + "0000 03 08 " + c.media + head + c.media2 + tail + c.stream + serial)},
			{"46 02 001e 000000 0200 00", "00", counted(c.profile + c.cdRead)},
			{"46 02 0042 000000 0200 00", "00", counted(c.profile)},
			{"46 00 0109 000000 0200 00", "00", counted(c.profile)},
			{"46 03 0000 000000 0200 00", "02 5/24/00", ""},
		})
	}
	checkReplies(t, discOf(1000), 7, []reply{ // from a feature on, those that are current
		{"46 01 0010 000000 0200 00", "00", counted("0000 0008" + "0010 01 08 00000800 0001 01 00" + "001d 01 00" + "001e 09 04 00000000" + tail + "0107 11 04 1c000000" + serial)},
	})
	checkReplies(t, newTestDrive(nil), 7, []reply{
		{"46 01 0010 000000 0200 00", "00", counted("0000 0000" + tail + serial)},
	})
}

// TestReadDVDStructure checks READ DVD STRUCTURE, MMC-6 6.22, of CDs and DVDs.
func TestReadDVDStructure(t *testing.T) {
	none := make([]byte, 2048)
	physical := func(last string) string {
		return "0802 0000 01 0f 01 00 00030000" + last + "00000000" + fmt.Sprintf("%x", none[:2048-16])
	}
	const list = "000e 0000 00 40 0804 01 40 0008 04 40 0804"
	for sectors, last := range map[int64]string{2295104: "0026053f", 0xfd0000: "00ffffff", 1 << 31: "00ffffff"} {
		d := discOf(sectors)
		checkReplies(t, d, 8, []reply{{"ad 00 00000000 00 ff 0900 00 00", "00", list}, {"ad 00 00000000 00 01 0900 00 00", "00", "0006 0000 00000000"}})
		for format, want := range map[string]string{"00": physical(last), "04": "0802 0000" + fmt.Sprintf("%x", none)} {
			c := send(t, d, nil, "ad 00 00000000 00 "+format+" 0900 00 00", nil)
			if wantEnding(t, c, "00"); !bytes.Equal(c.In, unhex(t, want)) {
				t.Errorf("%d sectors, format %s: % x", sectors, format, c.In[:32])
			}
		}
		for cdb, want := range map[string]string{
			"ad 00 00000000 01 00 0900 00 00": "02 5/24/00", // there is one layer
			"ad 00 00000000 00 03 0900 00 00": "02 5/24/00",
			"ad 01 00000000 00 00 0900 00 00": "02 5/30/02", // as of a BD
		} {
			wantEnding(t, send(t, d, nil, cdb, nil), want)
		}
	}
	checkReplies(t, discOf(1000), 8, []reply{
		{"ad 00 00000000 00 00 0900 00 00", "02 5/30/02", ""},
		{"ad 00 00000000 00 01 0900 00 00", "02 5/30/02", ""},
		{"ad 00 00000000 00 ff 0900 00 00", "00", "0002 0000"},
	})
}

// TestPerformance checks what tells and sets speeds.
func TestPerformance(t *testing.T) {
	d := discOf(1000)
	speed := func(want string) {
		t.Helper()
		c := send(t, d, nil, "ac 10 00000064 0000 0001 00 00", nil)
		if wantEnding(t, c, "00"); !bytes.Equal(c.In, unhex(t, "00000014 00 000000 00000064"+want+"000003e7"+want)) {
			t.Errorf("GET PERFORMANCE % x, want speed %s", c.In, want)
		}
		c = send(t, d, nil, "5a 08 2a 00 000000 00ff 00", nil)
		if got := fmt.Sprintf("0000%x", c.In[8+14:8+16]); got != want {
			t.Errorf("mode page 2A has speed %s, want %s", got, want)
		}
	}
	speed("00002100")
	for _, c := range []struct{ cdb, ending, in string }{
		{"ac 10 00000000 0000 0000 00 00", "00", "00000004 00000000"},
		{"ac 11 00000000 0000 0001 00 00", "00", "00000004 01000000"},
		{"ac 12 00000000 0000 0001 00 00", "00", "00000004 01000000"},
		{"ac 10 000003e8 0000 0001 00 00", "02 5/21/00", ""},
		{"ac 00 00000000 0000 0001 00 00", "02 5/24/00", ""},
		{"ac 14 00000000 0000 0001 00 00", "02 5/24/00", ""},
		{"ac 10 00000000 0000 0001 03 00", "02 5/24/00", ""},
		{"a7 00 000003e7 00000000 00 00", "00", ""},
		{"a7 00 000003e8 00000000 00 00", "02 5/21/00", ""},
		{"a7 00 00000000 000003e8 00 00", "02 5/21/00", ""},
		{"5c 00 0000000000 0100 00", "00", "000a 0000 00100000 00100000"},
		{"5c 01 0000000000 0100 00", "00", "000a 0001 00000200 00000200"},
		{"5c 01 0000000000 0003 00", "00", "000a 00"},
		{"bb 01 0400 ffff 0000000000 00", "02 5/24/00", ""},
	} {
		got := send(t, d, nil, c.cdb, nil)
		if wantEnding(t, got, c.ending); !bytes.Equal(got.In, unhex(t, c.in)) {
			t.Errorf("%s: % x", c.cdb, got.In)
		}
	}
	speed("00002100")
	send(t, d, nil, "bb 00 0400 ffff 0000000000 00", nil)
	speed("00000400")
	send(t, d, nil, "bb 00 0001 ffff 0000000000 00", nil)
	speed("000000b0")
	send(t, d, nil, "bb 00 ffff ffff 0000000000 00", nil)
	speed("00002100")

	const stream = "b6 00 000000000000 00 001c 00"
	for _, c := range []struct{ list, ending, speed string }{
		{"00000000 00000000 000003e7 00000800 000003e8 00000000 00000000", "00", "00000800"},
		{"00000000 00000000 000003e8 00000800 000003e8 00000000 00000000", "02 5/26/00", "00000800"},
		{"00000000 00000005 00000004 00000800 000003e8 00000000 00000000", "02 5/26/00", "00000800"},
		{"00000000 00000000 000003e7 00000800 00000000 00000000 00000000", "02 5/26/00", "00000800"},
		{"02000000 00000000 000003e7 ffffffff 00000001 00000000 00000000", "02 5/26/00", "00000800"},
		{"00000000 00000000 000003e7 ffffffff 00000001 00000000 00000000", "00", "00002100"},
		{"00000000 00000000 000003e7 00000000 00000001 00000000 00000000", "00", "000000b0"},
		{"04000000 00000000 00000000 00000000 00000000 00000000 00000000", "00", "00002100"},
	} {
		wantEnding(t, send(t, d, nil, stream, unhex(t, c.list)), c.ending)
		speed(c.speed)
	}
	for n := range 28 {
		wantEnding(t, send(t, d, nil, stream, make([]byte, n)), "02 5/1a/00")
	}
	wantEnding(t, send(t, d, nil, "b6 00 000000000000 00 0000 00", nil), "00")
	wantEnding(t, send(t, d, nil, "b6 00 000000000000 05 001c 00", make([]byte, 28)), "02 5/24/00")
	wantEnding(t, send(t, d, nil, "b6 00 000000000000 00 0020 00", make([]byte, 32)), "02 5/1a/00")
}

// TestDriveModes checks the mode pages of a drive.
func TestDriveModes(t *testing.T) {
	d := newTestDrive(nil)
	pages := map[byte]string{
		0x01: "010a 00 08 0000000000000000",
		0x0a: "0a0a 02 10 00 40 0000000000 00",
		0x0d: "0d06 00 00 003c 004b",
		0x0e: "0e0e 04 000000 0000 01ff 02ff 0000 0000",
		0x1a: "1a0a 00000000000000000000",
		0x2a: "2a1e 1b 00 40 00 29 00 2100 0000 0400 2100 0000 0000 0000 0000 0000 0000 0000 0000",
	}
	all := ""
	for _, code := range []byte{0x01, 0x0a, 0x0d, 0x0e, 0x1a, 0x2a} {
		p := unhex(t, pages[code])
		all += fmt.Sprintf("%x", p)
		checkReplies(t, d, 7, []reply{{fmt.Sprintf("5a 00 %02x 00 000000 00ff 00", code), "00", fmt.Sprintf("%04x 000000000000 %x", 6+len(p), p)}})
		c := send(t, d, nil, fmt.Sprintf("1a 08 %02x 00 ff 00", code), nil)
		if wantEnding(t, c, "00"); !bytes.Equal(c.In, append([]byte{byte(3 + len(p)), 0, 0, 0}, p...)) {
			t.Errorf("MODE SENSE(6) of page %02x: % x", code, c.In)
		}
		c = send(t, d, nil, fmt.Sprintf("5a 08 %02x 00 000000 00ff 00", 0x80|code), nil)
		if wantEnding(t, c, "00"); !bytes.Equal(c.In[8:], p) {
			t.Errorf("defaults of page %02x: % x", code, c.In)
		}
		wantEnding(t, send(t, d, nil, fmt.Sprintf("5a 08 %02x 00 000000 00ff 00", 0xc0|code), nil), "02 5/39/00")
	}
	c := send(t, d, nil, "5a 08 3f 00 000000 00ff 00", nil)
	if !bytes.Equal(c.In[8:], unhex(t, all)) {
		t.Errorf("all pages % x", c.In)
	}
	wantEnding(t, send(t, d, nil, "5a 08 05 00 000000 00ff 00", nil), "02 5/24/00")

	n := nexuses(t, d, 2)
	list := unhex(t, "0000000000000000 010a 20 03 0000000000000000")
	wantEnding(t, send(t, d, n[0], "55 10 0000000000 0014 00", list), "00")
	wantEnding(t, send(t, d, n[1], testUnitReady, nil), "02 6/2a/01")
	c = send(t, d, n[0], "5a 08 01 00 000000 00ff 00", nil)
	if !bytes.Equal(c.In[8:], list[8:]) {
		t.Errorf("page 01 as selected % x", c.In)
	}
	list[8+4] = 1 // nothing that can be changed
	wantEnding(t, send(t, d, n[0], "55 10 0000000000 0014 00", list), "02 5/26/00")
	d.Reset()
	d.take(n[0])
	c = send(t, d, n[0], "5a 08 01 00 000000 00ff 00", nil)
	if !bytes.Equal(c.In[8:], unhex(t, pages[1])) {
		t.Errorf("page 01 after a reset % x", c.In)
	}
}
