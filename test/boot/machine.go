//go:build boot

package boot

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bootTime bounds how long a machine may take until it is off again. It takes
// some seconds, more when others keep the processors busy.
const bootTime = 3 * time.Minute

// machine is a PC. What it boots from is tried in the order of the fields.
type machine struct {
	uefi   bool   // OVMF instead of SeaBIOS
	cd     string // URL of the drive, "": none
	device string // how QEMU shows it: scsi-block, with the drive's own answers, or scsi-cd, with QEMU's
	disk   string // URL of a disk, "": none
	san    string // what iPXE boots in place of all these, with an initiator of its own; "": nothing
}

// ipxeScript boots from a SAN device, or says why not.
const ipxeScript = `#!ipxe
sanboot %s || echo @@ failed: sanboot
poweroff
`

// Where Debian's OVMF is, and the blank variables of a machine.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// arguments returns QEMU's command line.
func (m machine) arguments(dir string) ([]string, error) {
	args := []string{"-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35", "-accel", "tcg", "-m", "384", "-serial", "stdio"}
	if m.san != "" {
		tftp := filepath.Join(dir, "tftp")
		err := write(filepath.Join(tftp, "boot.ipxe"), strings.NewReader(fmt.Sprintf(ipxeScript, m.san)))
		return append(args, "-device", "virtio-net-pci,netdev=net,bootindex=1", "-netdev", "user,id=net,tftp="+tftp+",bootfile=boot.ipxe"), err
	}
	args = append(args, "-device", "virtio-scsi-pci")
	if m.uefi {
		vars := filepath.Join(dir, "vars.fd")
		if err := copyFile(ovmfVars, vars); err != nil {
			return nil, fmt.Errorf("%w; the packages that this needs are in test/boot/packages.txt", err)
		}
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+ovmfCode, "-drive", "if=pflash,format=raw,file="+vars)
	}
	if m.cd != "" {
		args = append(args, "-drive", "if=none,id=cd,format=raw,readonly=on,file="+m.cd, "-device", m.device+",drive=cd,bootindex=1")
	}
	if m.disk != "" {
		args = append(args, "-drive", "if=none,id=disk,format=raw,file="+m.disk, "-device", "scsi-hd,drive=disk,bootindex=2")
	}
	return args, nil
}

// run switches the machine on and waits until it is off. It returns what the
// system has said to the test. dir takes the console, for people.
func (m machine) run(ctx context.Context, dir string) (said []string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("the machine is not off after %v", bootTime))
	defer cancel()
	args, err := m.arguments(dir)
	if err != nil {
		return nil, err
	}
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = console
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; the packages that this needs are in test/boot/packages.txt", err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		fmt.Fprintln(console, s.Text())
		// Firmware and boot loader leave sequences for terminals before it.
		if _, text, ok := strings.Cut(strings.TrimSpace(s.Text()), "@@ "); ok {
			said = append(said, text)
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		text, _ := os.ReadFile(console.Name())
		err = fmt.Errorf("%w; the console:\n%s", err, text)
	}
	return said, err
}
