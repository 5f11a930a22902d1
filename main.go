// Command skylun is an iSCSI target whose disks live in the cloud.
package main

import (
	"os"

	"skylun/cmd"
)

func main() { os.Exit(cmd.Main()) }
