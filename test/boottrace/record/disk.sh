#!/bin/sh
# Makes a disk that boots Debian as its images for clouds do: GRUB, ext4,
# systemd, cloud-init, netplan, sshd. As root, with mmdebstrap and grub-pc-bin.
# When everything is up it says so on the serial console.
#
#   disk.sh FILE
set -eu
disk=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
grub=/usr/lib/grub/i386-pc
begin=2048                  # of the partition, in sectors
sectors=$((4 << 21))        # of the disk
offset=$((begin * 512))

mmdebstrap --quiet --variant=important --include=linux-image-cloud-amd64,systemd-sysv,dbus,openssh-server,cloud-init,cloud-guest-utils,unattended-upgrades,python3,chrony,netplan.io,sudo,locales bookworm "$tmp/root"
cd "$tmp/root"
mkdir -p boot/grub/i386-pc var/lib/cloud/seed/nocloud-net
cp "$grub"/*.mod "$grub"/*.lst boot/grub/i386-pc/
cat >boot/grub/grub.cfg <<END
linux /vmlinuz root=/dev/sda1 ro console=ttyS0 quiet
initrd /initrd.img
boot
END
echo "/dev/sda1 / ext4 errors=remount-ro 0 1" >etc/fstab
echo "instance-id: recorded" >var/lib/cloud/seed/nocloud-net/meta-data
echo "#cloud-config" >var/lib/cloud/seed/nocloud-net/user-data
cat >etc/systemd/system/up.service <<END
[Unit]
Description=Say that everything is up
After=cloud-final.service ssh.service chrony.service
[Service]
Type=idle
ExecStart=/bin/sh -c 'echo "@@ up" >/dev/ttyS0'
[Install]
WantedBy=cloud-init.target
END
mkdir -p etc/systemd/system/cloud-init.target.wants
ln -s ../up.service etc/systemd/system/cloud-init.target.wants/up.service

cd "$tmp"
rm -f "$disk"
truncate -s $((sectors * 512)) "$disk"
mke2fs -q -t ext4 -L root -d root -E "offset=$offset" "$disk" $(((sectors - begin) / 2))k
# The boot loader in front of the partition, whose place is entry 1 of the table.
grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o core.img biosdisk part_msdos ext2
dd if="$grub/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if=core.img of="$disk" bs=512 seek=1 conv=notrunc status=none
number() { printf "\\$(printf %o $(($1 & 255)))\\$(printf %o $(($1 >> 8 & 255)))\\$(printf %o $(($1 >> 16 & 255)))\\$(printf %o $(($1 >> 24 & 255)))"; }
{
	printf '\200\376\377\377\203\376\377\377'
	number $begin
	number $((sectors - begin))
	head -c 48 /dev/zero
	printf '\125\252'
} | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
