# A partition table, and LVM in one of the partitions.

export LVM_SUPPRESS_FD_WARNINGS=1
start_iscsid
login
disk=$(disk "$LUN")
mkdir -p /mnt/files

step "a partition table"
quiet sfdisk --wipe always "$disk" <<-END
	label: gpt
	size=256MiB, name=first
	size=1GiB, type=lvm, name=second
	name=third
END
udevadm settle
sfdisk --verify "$disk"
sfdisk --dump "$disk" | tee /out/table
for n in 1 2 3; do
	[ -b "/dev/disk/by-path/ip-$PORTAL-iscsi-$TARGET-lun-$LUN-part$n" ] || fail "no name for partition $n"
done

step "a file system in the first partition"
quiet mkfs.ext4 "${disk}1"
mount "${disk}1" /mnt/files
files /mnt/files 100
umount /mnt/files

step LVM
quiet pvcreate "${disk}2"
quiet vgcreate vg "${disk}2"
quiet lvcreate --yes --size 300M --name lv vg
quiet mkfs.ext4 /dev/vg/lv
mkdir -p /mnt/lv
mount /dev/vg/lv /mnt/lv
files /mnt/lv 100
quiet lvextend --size +100M vg/lv
quiet resize2fs /dev/vg/lv
step "a snapshot"
sync
quiet lvcreate --yes --snapshot --size 100M --name before vg/lv
rm -r /mnt/lv/[0-9]*
umount /mnt/lv
mount /dev/vg/before /mnt/lv
same /mnt/lv
umount /mnt/lv
quiet lvremove --yes vg/before
mount /dev/vg/lv /mnt/lv
files /mnt/lv 20
umount /mnt/lv
quiet vgchange --activate n vg

step "after the next login"
logout
login
disk=$(disk "$LUN")
sfdisk --dump "$disk" | sed "s|^device: .*|device: $disk|" >/out/table2
sed -i "s|^device: .*|device: $disk|" /out/table
diff /out/table /out/table2
quiet e2fsck -f -n "${disk}1"
mount "${disk}1" /mnt/files
same /mnt/files
umount /mnt/files
quiet vgchange --activate y vg
pvs
lvs
mount /dev/vg/lv /mnt/lv
same /mnt/lv
umount /mnt/lv
quiet e2fsck -f -n /dev/vg/lv
quiet vgchange --activate n vg
logout
