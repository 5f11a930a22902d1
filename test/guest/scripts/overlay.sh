# Two volumes of one image with an ext4 file system: all of it can be read, what
# is written to the first stays, and does not show in the second.

image_files() { (cd /mnt/image && sha256sum -c --quiet SUMS) || fail "files of the image"; }

start_iscsid
login
disk=$(disk 0)
mkdir -p /mnt/image

step "read everything"
mount "$disk" /mnt/image
image_files
wc -l </mnt/image/SUMS

step "write"
mkdir /mnt/image/more
files /mnt/image/more 500
echo changed >/mnt/image/d1/changed
rm -r /mnt/image/d2
quiet fio --eta=never --name=verify --directory=/mnt/image --size=16m --direct=1 --ioengine=libaio --iodepth=8 \
	--rw=randwrite --bs=1k --verify=crc32c --verify_fatal=1 --output=/out/fio
umount /mnt/image

written() {
	quiet e2fsck -f -n "$disk"
	mount "$disk" /mnt/image
	same /mnt/image/more
	[ "$(cat /mnt/image/d1/changed)" = changed ] || fail "a changed file is not"
	[ ! -e /mnt/image/d2 ] || fail "a removed folder is there again"
	(cd /mnt/image && grep -v ' ./d2/' SUMS | sha256sum -c --quiet) || fail "files of the image"
	umount /mnt/image
}
step "read again"
logout
login
disk=$(disk 0)
written

step "the second volume shows the image"
disk=$(disk 1)
mount "$disk" /mnt/image
image_files
[ ! -e /mnt/image/more ] || fail "what was written to the other shows"
umount /mnt/image
logout

step "read again, from a server that was restarted"
host stop TERM
host serve
login
disk=$(disk 0)
written
logout
