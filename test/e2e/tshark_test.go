//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// severityWarning is what Wireshark calls a warning; errors are above.
const severityWarning = 0x600000

// wellFormed closes the capture and requires that tshark understands every
// packet of the target, has no warning about any, and finds the PDUs that are wanted.
func (c *capture) wellFormed(want ...pdu.Opcode) {
	c.t.Helper()
	c.close()
	seen := make(map[string]int)
	packets := c.dissect()
	for _, p := range packets {
		for _, op := range p.opcodes {
			seen[op]++
		}
	}
	for _, problem := range c.problems(packets) {
		c.t.Error(problem)
	}
	for _, op := range want {
		if seen[fmt.Sprintf("0x%02x", byte(op))] == 0 {
			c.t.Errorf("tshark sees no %v, only %v", op, slices.Sorted(maps.Keys(seen)))
		}
	}
	c.t.Logf("PDUs by opcode: %v", seen)
}

// problems returns what tshark finds wrong with what the target sends.
func (c *capture) problems(packets []packet) (found []string) {
	c.t.Helper()
	for _, p := range packets {
		worst := 0
		for _, s := range p.severity {
			n, err := strconv.ParseInt(s, 0, 64)
			if err != nil {
				c.t.Fatalf("severity %q: %v", s, err)
			}
			worst = max(worst, int(n))
		}
		if !p.malformed && !p.foreign && worst < severityWarning || !p.target {
			continue
		}
		if p.messages == "Unknown Page" {
			continue // SCSI: a mode page that this tshark cannot show
		}
		view := tool(c.t, "tshark", "-r", c.file, "-V", "-Y", "frame.number=="+p.number)
		if strings.Contains(view, "Malformed Packet: SCSI") && strings.Contains(view, "Inquiry Response Data") {
			continue // a client has asked for less than there is, and tshark misses the rest
		}
		found = append(found, fmt.Sprintf("packet %s with PDUs %v: malformed %t, bytes of no PDU %t, severity 0x%x: %s\n%s",
			p.number, p.opcodes, p.malformed, p.foreign, worst, p.messages, view))
	}
	if out := tool(c.t, "tshark", "-r", c.file, "-V", "-Y", "tcp.srcport==3260"); strings.Contains(out, "should be 0x") || strings.Contains(out, "incorrect") {
		found = append(found, "values that are incorrect:\n"+grep(out, "incorrect", "should be 0x"))
	}
	return found
}

// grep returns the lines of text that hold one of the words.
func grep(text string, words ...string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			found.WriteString(line)
		}
	}
	return found.String()
}

// What is on the wire between the server and clients that others wrote is
// well-formed to the eyes of a third party.
func TestWellFormed(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 64MiB", "volume: other, size: 64MiB")
	s.start()

	t.Run("discovery", func(t *testing.T) {
		c := newCapture(t, s.portal)
		tool(t, "iscsi-ls", "iscsi://"+c.addr)
		c.wellFormed(pdu.LoginReq, pdu.LoginResp, pdu.TextReq, pdu.TextResp)
	})
	t.Run("inquiry", func(t *testing.T) {
		c := newCapture(t, s.portal)
		tool(t, "iscsi-inq", c.url(iqn+"/0"))
		tool(t, "iscsi-readcapacity16", c.url(iqn+"/0"))
		c.wellFormed(pdu.SCSICommand, pdu.DataIn, pdu.LogoutReq, pdu.LogoutResp)
	})
	t.Run("reads and writes", func(t *testing.T) {
		c := newCapture(t, s.portal)
		qemuIO(t, c.url(iqn+"/0"), "write -P 0x11 0 4k", "write -P 0x22 1M 4M", "read -P 0x11 0 4k", "read -P 0x22 1M 4M",
			"discard 8M 1M", "write -z 12M 64k", "flush")
		c.wellFormed(pdu.SCSICommand, pdu.DataIn, pdu.SCSIResponse, pdu.R2T, pdu.DataOut)
	})
	for _, name := range []string{"iSCSI.iSCSITMF.AbortTaskSimpleAsync", "iSCSI.iSCSIResiduals.*", "iSCSI.iSCSIdatasn.*", "SCSI.ReportSupportedOpcodes.*"} {
		t.Run(name, func(t *testing.T) {
			c := newCapture(t, s.portal)
			if o := command(t, "iscsi-test-cu", "--dataloss", "--test="+name, c.url(iqn+"/0")); o.status != 0 {
				t.Errorf("exit status %d\n%s%s", o.status, o.stdout, o.stderr)
			}
			c.wellFormed(pdu.SCSICommand)
		})
	}
	// Digests, and what those clients do not send.
	for _, digests := range []string{"None,None", "CRC32C,None", "None,CRC32C", "CRC32C,CRC32C"} {
		t.Run("the rest with digests "+digests, func(t *testing.T) {
			c := newCapture(t, s.portal)
			header, data, _ := strings.Cut(digests, ",")
			everything(t, c.addr, initiator.Keys{"HeaderDigest", header, "DataDigest", data, "InitialR2T", "Yes", "ImmediateData", "Yes", "MaxRecvDataSegmentLength", "8192"})
			c.wellFormed(pdu.NOPOut, pdu.NOPIn, pdu.TextResp, pdu.Reject, pdu.TaskRequest, pdu.TaskResponse, pdu.R2T, pdu.DataIn, pdu.LogoutResp)
			view := tool(t, "tshark", "-r", c.file, "-V", "-Y", "tcp.srcport==3260")
			for _, d := range []struct {
				name string
				on   bool
			}{{"HeaderDigest:", header == "CRC32C"}, {"DataDigest:", data == "CRC32C"}} {
				if good := strings.Count(grep(view, d.name), "Good CRC32"); (good > 5) != d.on {
					t.Errorf("tshark finds %d good values of %s\n%s", good, d.name, grep(view, "Digest"))
				}
			}
		})
	}
	t.Run("header digests of libiscsi", func(t *testing.T) {
		c := newCapture(t, s.portal)
		disk := fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"iscsi","transport":"tcp","portal":%q,"target":%q,"lun":0,"header-digest":"crc32c"}}`, c.addr, iqn)
		out := tool(t, "qemu-io", "-t", "none", "-c", "write -P 0x33 0 2M", "-c", "flush", "-c", "read -P 0x33 0 2M", disk)
		if failedIO(out) {
			t.Error(out)
		}
		c.wellFormed(pdu.SCSICommand, pdu.DataIn, pdu.R2T, pdu.LogoutResp)
		if view := tool(t, "tshark", "-r", c.file, "-V"); !strings.Contains(view, "Good CRC32") {
			t.Error("there are no digests")
		}
	})
	// A session of two connections, which is asked to log out.
	c := newCapture(t, s.portal)
	a, b := twoConnections(t, c.addr)
	asked := make(chan error, 1)
	go func() {
		p, err := a.Receive()
		if err == nil && (p.Opcode() != pdu.AsyncMessage || p.AsyncEvent() != pdu.AsyncLogoutRequest) {
			err = fmt.Errorf("received %v", p)
		}
		if err == nil {
			err = a.Logout()
		}
		asked <- err
	}()
	s.stop()
	if err := <-asked; err != nil {
		t.Errorf("the first connection: %v", err)
	}
	if p, err := b.Receive(); err != nil || p.Opcode() != pdu.AsyncMessage {
		t.Errorf("the second connection: %v, %v", p, err)
	}
	b.Close()
	c.wellFormed(pdu.AsyncMessage, pdu.SCSICommand, pdu.DataIn, pdu.LogoutResp)
	s.check()
}

// The looks at captures can find something.
func TestIllFormed(t *testing.T) {
	for name, answer := range map[string]func(login *initiator.PDU) []byte{
		"no such opcode":    func(p *initiator.PDU) []byte { p.SetOpcode(0x2f); return p.Bytes() },
		"a PDU that is cut": func(p *initiator.PDU) []byte { return p.Bytes()[:80] },
		"bytes of no PDU":   func(*initiator.PDU) []byte { return bytes.Repeat([]byte{0xee}, 60) },
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			c := newCapture(t, ln.Addr().String())
			i, err := initiator.Dial(c.addr)
			if err != nil {
				t.Fatal(err)
			}
			server, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			login := i.NewLogin(pdu.Operational, pdu.FullFeature, true, initiator.Options{Initiator: "iqn.2026-11.com.example:wire", Target: iqn}.Names())
			if err := i.Send(login); err != nil {
				t.Fatal(err)
			}
			login.SetOpcode(pdu.LoginResp)
			server.Write(answer(login))
			server.Close()
			i.Close()
			c.close()
			if len(c.problems(c.dissect())) == 0 {
				t.Error("nothing is found")
			}
		})
	}
}
