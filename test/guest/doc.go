// Package guest runs scripts in a machine of its own that uses the server with
// the Linux kernel's initiator: open-iscsi, SCSI disks, multipath, file
// systems. The machine is User-Mode Linux, a kernel that is a program, so it
// needs no virtualization and boots in about three seconds.
//
//	the test -- anchor (first process of a process and network namespace)
//	              |-- skylun serve          with a portal on path0 and on path1
//	              |-- linux, the guest      with a network card on path0 and on path1
//
//	            path0                path1
//	host        192.0.2.1            198.51.100.1
//	guest       192.0.2.2            198.51.100.2
//
// Everything of a run is in namespaces that have no name and in one folder.
// Runs cannot meet, and when the test ends, however it ends, the kernel ends
// the anchor and with it all processes, network cards and addresses. What a
// killed run can leave is its folder; the next run removes it.
//
// # Scripts
//
// A script is run by sh -eu in the guest, after lib.sh, which has its words:
// step, fail, login, disk and others. It has passed when its exit status is 0
// and the guest's kernel has not complained. What it puts into /out comes back
// as files.
//
// It can ask the host for something and wait for it:
//
//	host serve              start the server
//	host stop SIGNAL        end it by a signal, wait for its end
//	host link N up|down     join or cut path N
//	host skylun ARGS...     run a command of the binary on the running server
//
// Options.Alone leaves the server out, for tests that run it in the guest, such as
// powercut; Options.Host and Options.Disks give the guest programs and disks.
//
// # By hand
//
//	go run ./test/guest/cmd -shell        a guest, with the server beside it, to look around
//	go run ./test/guest/cmd SCRIPT        one script
//
// All of it needs root, and the Debian packages that packages.txt lists.
//
// # When something fails
//
// The folder of the run is kept and named: the console of the guest, the log
// and the data of the server, the script's output and files. It is replaced
// when the same test fails again.
package guest
