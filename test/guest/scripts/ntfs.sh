# NTFS, as ntfs-3g writes it.

start_iscsid
login
disk=$(disk "$LUN")
modprobe fuse
mkdir -p /mnt/files

step mkfs.ntfs
quiet mkfs.ntfs --force --quick --label skylun "$disk"
step "300 files"
mount -t ntfs-3g "$disk" /mnt/files
files /mnt/files 300
umount /mnt/files

step "after the next login"
logout
login
disk=$(disk "$LUN")
udevadm info -q property "$disk" | grep '^ID_FS_TYPE=ntfs$' || fail "udev sees no NTFS"
quiet ntfsfix --no-action "$disk"
mount -t ntfs-3g "$disk" /mnt/files
same /mnt/files
umount /mnt/files
logout
