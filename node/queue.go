package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// diskQueue are the disks that members are on, as /sys/dev/block shows them.
type diskQueue []string

// diskQueues finds the disks below directories and devices. What has no
// queue that the system shows, such as a tmpfs, is left out.
func diskQueues(members []string) (q diskQueue) {
	seen := map[string]bool{}
	for _, m := range members {
		var st unix.Stat_t
		if unix.Stat(m, &st) != nil {
			continue
		}
		dev := st.Dev
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			dev = st.Rdev
		}
		dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
		if _, err := os.Stat(dir + "/partition"); err == nil {
			dir += "/.." // requests wait in the queue of the disk
		}
		if _, err := os.Stat(dir + "/inflight"); err == nil && !seen[dir] {
			seen[dir] = true
			q = append(q, dir+"/inflight")
		}
	}
	return q
}

// depth returns how many reads the busiest disk has in its queue. Writes do not
// count: most of them are copies on their way to the disk, which nobody waits
// for.
func (q diskQueue) depth() (most int) {
	for _, file := range q {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		reads, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		if n, err := strconv.Atoi(reads); err == nil {
			most = max(most, n)
		}
	}
	return most
}
