// Package boot boots machines from the server: PCs that QEMU emulates, with
// the firmware that computers have, and QEMU's own initiator below their SCSI
// controller.
//
//	test -- skylun serve      a CD-ROM drive, and blank disks
//	     |     ^
//	     |     | iSCSI: libiscsi in QEMU, as scsi-block or scsi-cd
//	     |     |
//	     +-- qemu-system-x86_64       SeaBIOS or OVMF, GRUB, Linux
//	              |     or iPXE, from its network card
//	              |
//	              +-- serial console: lines that begin with @@ are for the test
//
// The disc is made here, of Debian's cloud kernel, GRUB for both firmwares and
// busybox (folder disc). Its system checks the files on the disc, installs
// itself on a blank disk without asking, and switches the machine off. What is
// installed checks its files and does likewise.
//
// The machine is emulated, so it needs no virtualization; a boot takes some
// seconds. Debian packages that are needed are listed in packages.txt; the
// kernel is downloaded once and kept with what else tests have downloaded.
package boot
