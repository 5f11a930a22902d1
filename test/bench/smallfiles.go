package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// smallFiles is a load of a guest: what mail servers and PostMark do. Files of 512
// bytes to 10 KiB are made in many folders; now and then one grows, or is removed.
type smallFiles struct {
	count   int // files made
	folders int
	synced  int // after so many files all is synced; 1: each file by itself
}

// args are the arguments of the program in the guest.
func (l smallFiles) args(dir string) []string {
	return []string{"files", dir, strconv.Itoa(l.count), strconv.Itoa(l.folders), strconv.Itoa(l.synced)}
}

// smallFilesMain is the main of the program in the guest, with args without the
// first.
func smallFilesMain(args []string) error {
	var l smallFiles
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &l.count, &l.folders, &l.synced); err != nil {
		return err
	}
	return l.run(args[0])
}

func (l smallFiles) run(dir string) error {
	random, content := rand.New(rand.NewPCG(1, 2)), rand.NewChaCha8([32]byte{3})
	p := make([]byte, 10<<10)
	for i := range l.folders {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint("d", i)), 0o755); err != nil {
			return err
		}
	}
	name := func(i int) string { return filepath.Join(dir, fmt.Sprint("d", i%l.folders), fmt.Sprint("f", i)) }
	write := func(name string, flag int) error {
		f, err := os.OpenFile(name, os.O_WRONLY|flag, 0o644)
		if err != nil {
			return err
		}
		content.Read(p)
		_, err = f.Write(p[:512+random.IntN(len(p)-512)])
		if err == nil && l.synced == 1 {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}
	for i := range l.count {
		if err := write(name(i), os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
		var err error
		switch other := name(random.IntN(i + 1)); random.IntN(10) {
		case 0:
			err = os.Remove(other)
		case 1, 2:
			err = write(other, os.O_APPEND)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // removed before
			return err
		}
		if l.synced > 1 && i%l.synced == 0 {
			unix.Sync()
		}
	}
	return nil
}
