# A disk that is resized while a file system on it is mounted: Linux sees it
# when it looks again, and the file system grows.

start_iscsid
login
disk=$(disk "$LUN")
name=${disk##*/}
size() { cat "/sys/block/$name/size"; } # in sectors

quiet mkfs.ext4 "$disk"
mkdir -p /mnt/files
mount "$disk" /mnt/files
files /mnt/files 200
[ "$(size)" = $((2 << 21)) ] || fail "$(size) sectors before"

step "3 GiB"
host skylun volume resize demo 3GiB
quiet dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct # any command hears of it
echo 1 >"/sys/block/$name/device/rescan"
[ "$(size)" = $((3 << 21)) ] || fail "$(size) sectors after"
dmesg | grep -q 'Capacity data has changed' || fail "Linux has not been told: $(dmesg | tail)"
quiet resize2fs "$disk"
[ "$(df -Pk /mnt/files | awk 'END { print $2 }')" -gt 2800000 ] || fail "the file system is no larger: $(df -k /mnt/files)"
same /mnt/files
quiet dd if=/dev/urandom of=/mnt/files/big bs=1M count=64 conv=fsync

step "smaller is refused"
! host skylun volume resize demo 2GiB >/run/said || fail "it was made smaller: $(cat /run/said)"
grep -q 'make the file system on it smaller first' /run/said || fail "no advice: $(cat /run/said)"

step "smaller after the file system"
rm /mnt/files/big
umount /mnt/files
quiet e2fsck -f -y "$disk"
quiet resize2fs "$disk" 1G
host skylun volume resize demo 1GiB --force
blockdev --rereadpt "$disk" 2>/dev/null || :
echo 1 >"/sys/block/$name/device/rescan"
[ "$(size)" = $((1 << 21)) ] || fail "$(size) sectors after"
quiet e2fsck -f -n "$disk"
mount "$disk" /mnt/files
same /mnt/files
umount /mnt/files

step "after a restart of the server"
host stop TERM
host serve
logout
login
disk=$(disk "$LUN")
name=${disk##*/}
[ "$(size)" = $((1 << 21)) ] || fail "$(size) sectors after a restart"
quiet e2fsck -f -n "$disk"
logout
