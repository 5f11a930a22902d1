# A file system ($FS) on a blank disk: made with discard, a few thousand files,
# random writes that are verified, trimmed, checked, and the same after the
# next login.

start_iscsid
login
disk=$(disk "$LUN")

step "what is discarded reads as zeros"
quiet dd if=/dev/urandom of="$disk" bs=1M count=8 oflag=direct
blkdiscard --offset 1MiB --length 4MiB "$disk"
[ -z "$(dd if="$disk" bs=1M skip=1 count=4 iflag=direct 2>/dev/null | tr -d '\0' | head -c 1)" ] || fail "it does not"
blkdiscard "$disk"

step "mkfs.$FS"
case $FS in
ext4) quiet mkfs.ext4 -E discard "$disk" ;;
xfs) quiet mkfs.xfs "$disk" ;;
esac
mkdir -p /mnt/files
mount "$disk" /mnt/files

step "3000 files"
files /mnt/files 3000
sync

step "fio with verify"
quiet fio --eta=never --name=verify --directory=/mnt/files --size=64m --direct=1 --ioengine=libaio --iodepth=16 \
	--rw=randwrite --bsrange=4k-128k --fsync=64 --verify=crc32c --verify_fatal=1 --output=/out/fio
grep -E 'READ:|WRITE:' /out/fio
rm /mnt/files/verify.*

step fstrim
fstrim -v /mnt/files
umount /mnt/files

check() {
	case $FS in
	ext4) quiet e2fsck -f -n "$disk" ;;
	xfs) quiet xfs_repair -n "$disk" ;;
	esac
}
step "check the file system"
check

step "after the next login"
logout
login
disk=$(disk "$LUN")
mount "$disk" /mnt/files
same /mnt/files
rm -r /mnt/files/[0-9]*
umount /mnt/files
check
logout
