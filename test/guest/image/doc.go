// Package image makes the machine that the guest tests boot: the kernel of
// Debian's user-mode-linux, which is a program, and an initramfs of Debian
// packages with udev, open-iscsi, multipath, file systems and tools.
//
// Three lists say what is in it:
//
//	packages   the Debian packages that it is made of
//	files      what of them the guest gets; what programs need to run comes along
//	modules    the kernel modules that it gets; those they need come along
//
// The packages come through apt-get from wherever this host gets its own, in
// the versions that it would install. Nothing is installed: they are unpacked
// beside the cache, and the initramfs is written without root. The result is
// cached by the content of the lists, together with the versions of all
// packages that it was made of, and stays as it is until the lists change or
// somebody asks for a new one.
//
// The init of the initramfs does nothing but mount the folder of the host that
// host= on the kernel's command line names, on /host, and go on with
// /host/init.
package image
