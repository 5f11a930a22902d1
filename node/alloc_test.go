package node

import (
	"os"
	"syscall"
)

// blocksOf returns the bytes that a file takes on the disk.
func blocksOf(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512, nil
}
