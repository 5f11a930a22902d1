package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// startTgtd returns what runs tgtd over files in a directory. backend is one of
// tgtd's backing stores for files: "rdwr" (threads, page cache) or "aio"
// (O_DIRECT).
func startTgtd(backend string) func(dir string, o options) (*side, error) {
	return func(dir string, o options) (*side, error) {
		s := &side{name: "tgtd-" + backend, lun: map[unit]int{readUnit: 1, ownUnit: 2}, separate: true} // LUN 0 is a controller
		return s, s.runTgtd(dir, backend, o.size)
	}
}

func (s *side) runTgtd(dir, backend string, size int64) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	s.addr = addr
	control := strconv.Itoa(os.Getpid()%10000 + map[string]int{"rdwr": 1000, "aio": 12000}[backend])
	s.litter = []string{"/var/run/tgtd/socket." + control, "/var/run/tgtd/socket." + control + ".lock"}
	if err := s.start(dir, exec.Command("tgtd", "-f", "-C", control, "--iscsi", "portal="+addr)); err != nil {
		return err
	}
	read, own := filepath.Join(dir, s.name+"-read.img"), filepath.Join(dir, s.name+"-own.img")
	if err := writeRandom(read, size); err != nil {
		return err
	}
	if err := writeScattered(own, size); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"--op", "new", "--mode", "target", "--tid", "1", "-T", iqn},
		{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--bstype", backend, "-b", read},
		{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "2", "--bstype", backend, "-b", own},
		{"--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"},
		{"--op", "new", "--mode", "target", "--tid", "2", "-T", iqnDigests},
		{"--op", "new", "--mode", "logicalunit", "--tid", "2", "--lun", "1", "--bstype", backend, "-b", read},
		{"--op", "new", "--mode", "logicalunit", "--tid", "2", "--lun", "2", "--bstype", backend, "-b", own},
		{"--op", "update", "--mode", "target", "--tid", "2", "-n", "HeaderDigest", "-v", "CRC32C"},
		{"--op", "update", "--mode", "target", "--tid", "2", "-n", "DataDigest", "-v", "CRC32C"},
		{"--op", "bind", "--mode", "target", "--tid", "2", "-I", "ALL"},
	} {
		if out, err := exec.Command("tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("tgtadm %v: %w: %s", args, err, out)
		}
	}
	return settle(read)
}
