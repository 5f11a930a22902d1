# A DVD-ROM drive as Linux uses it: mounted, locked, ejected by either side, with
# another disc in it, and through a restart of the server while it is read.

start_iscsid
login
cd=$(disk 1)
udevadm settle
echo 0 >/proc/sys/dev/cdrom/autoclose # else opening the device closes the tray

# label TEXT: within thirty seconds, as other guests run beside this one, udev knows of a disc with that label, or of
# none.
label() {
	for _ in $(seq 150); do
		! udevadm info -q property "$cd" | grep '^ID_FS_LABEL=' >/run/label || [ -n "$1" ] || { sleep 0.2; continue; }
		[ "$(cut -d= -f2 /run/label)" != "$1" ] || return 0
		sleep 0.2
	done
	fail "the disc has the label $(cat /run/label), not $1"
}

# sums: all files of the mounted disc are what they were.
sums() { (cd /mnt && sha256sum -c --quiet SUMS) || fail "files are not what they were"; }

# locked COMMAND...: the command finds that the removal of the disc is prevented.
locked() {
	! "$@" >/run/said 2>&1 || fail "$*: the tray is not locked"
	grep -qi -e 'removal prevented' -e 'tray is locked' /run/said || fail "$*: $(cat /run/said)"
}

# queue VERB: udev lets what it is asked to do wait (stop), or does it (start). It is told several times: a word of
# udevadm control is lost ("invalid sender uid 65534") when it arrives while udev is about to ask who is calling.
queue() { for _ in 1 2 3 4 5 6; do udevadm control --"$1"-exec-queue; done; }

# server VERB [IMAGE]: the server inserts or ejects, again if udev has not let go of the disc in the five seconds that it
# is given.
server() {
	verb=$1
	shift
	for _ in $(seq 6); do
		! host skylun cdrom "$verb" "$TARGET" 1 "$@" >/run/said || return 0
	done
	fail "$verb $*: $(cat /run/said)"
}

# open: eject opens the tray, in two commands. Udev locks it whenever it looks at the disc, which may be in between.
open() { eject "$cd" || { udevadm settle && eject "$cd"; }; }

tray_open="sg_raw $cd 1b 00 00 00 02 00"

step "what Linux makes of it"
[ "$(blockdev --getss "$cd")" = 2048 ] || fail "sectors of $(blockdev --getss "$cd") bytes"
[ "$(blockdev --getro "$cd")" = 1 ] || fail "not read-only"
label ONE
udevadm info -q property "$cd" >/out/udev
for property in ID_CDROM=1 ID_CDROM_MEDIA=1 ID_CDROM_CD=1 ID_CDROM_DVD=1 ID_CDROM_MEDIA_TRACK_COUNT_DATA=1 ID_MODEL=VIRTUAL_DVD-ROM; do
	grep -q "^$property" /out/udev || fail "udev has no $property: $(cat /out/udev)"
done
[ "$(cat "/sys/block/${cd##*/}/removable")" = 1 ] || fail "not removable"
grep -q media_change "/sys/block/${cd##*/}/events" || fail "no media events"

step "what sg3-utils, libcdio and genisoimage make of it"
# clean COMMAND...: it succeeds and complains of nothing.
clean() {
	"$@" >/run/said 2>/run/complaint || fail "$*: status $?: $(cat /run/said /run/complaint)"
	{ echo "# $*"; cat /run/said; } >>/out/tools
	[ ! -s /run/complaint ] || fail "$*: $(cat /run/complaint)"
}
says() { grep -q -e "$1" /run/said || fail "no line with '$1' in: $(cat /run/said)"; }
clean sg_inq "$cd"
says 'RMB=1'
clean sg_inq --descriptors "$cd"
says MMC-6
for page in 0 0x80 0x83; do clean sg_vpd --page="$page" "$cd"; done
clean sg_get_config "$cd"
says 'profile: CD-ROM'
for feature in Core Morphing 'Removable media' 'Random readable' 'CD read' 'Power management' Timeout 'Real time streaming'; do says "$feature"; done
clean sg_get_config --raw "$cd"
clean sg_modes --all "$cd"
says 'MM capabilities'
clean sg_readcap "$cd"
says '2048'
clean sg_turs "$cd"
clean cd-info --no-header --no-cddb "$cd"
says 'CD-ROM Track List'
says 'CD-ROM with ISO 9660'
says 'ISO 9660: .*, label .ONE'
clean isoinfo -d -i "$cd"
says 'Volume id: ONE'
clean isoinfo -R -f -i "$cd"
says '/SUMS'

step "mounted: all files are what they were"
mount -t iso9660 -o ro "$cd" /mnt
sums
locked $tray_open
queue stop # udev obeys when it is asked to eject, mounted or not
locked host skylun cdrom eject "$TARGET" 1
sums
host skylun lun list >/run/luns
grep -q 'one.iso (ONE), locked' /run/luns || fail "lun list: $(cat /run/luns)"
umount /mnt

step "unmounted: udev does what was asked of it meanwhile"
queue start
label ""
udevadm settle # it forgets the disc before it opens the tray
host skylun lun list >/run/luns
grep -q 'one.iso (ONE), tray open' /run/luns || fail "lun list: $(cat /run/luns)"
eject -t "$cd"
label ONE

step "eject, and in again"
open
! dd if="$cd" of=/dev/null count=1 2>/dev/null || fail "there is a disc after eject"
host skylun lun list >/run/luns
grep -q 'one.iso (ONE), tray open' /run/luns || fail "lun list: $(cat /run/luns)"
label ""
eject -t "$cd"
label ONE
mount -t iso9660 -o ro "$cd" /mnt
sums
umount /mnt

step "another disc: the kernel finds it by itself"
server insert two.iso
label TWO
mount -t iso9660 -o ro "$cd" /mnt
grep -q two /mnt/name || fail "another disc than the one that was put in"
sums
[ "$(blockdev --getsize64 "$cd")" = "$TWO" ] || fail "the disc has $(blockdev --getsize64 "$cd") bytes, not $TWO"

step "a DVD, of more than 4 GiB"
umount /mnt
server insert large.iso
label LARGE
[ "$(blockdev --getsize64 "$cd")" = "$LARGE" ] || fail "the disc has $(blockdev --getsize64 "$cd") bytes, not $LARGE"
udevadm info -q property "$cd" | grep -q ID_CDROM_MEDIA_DVD=1 || fail "udev does not take it for a DVD"
sg_get_config "$cd" | grep -q 'profile: DVD-ROM , currentP=1' || fail "another profile than DVD-ROM"
[ "$(dd if="$cd" bs=2048 skip=$((LARGE / 2048 - 1)) 2>/dev/null | tr -d '\0' | wc -c)" = 0 ] || fail "the last sector is not zeros"
[ "$(dd if="$cd" bs=2048 skip=$((LARGE / 2048 - 1)) 2>/dev/null | wc -c)" = 2048 ] || fail "the last sector is short"
mount -t iso9660 -o ro "$cd" /mnt
sums

step "another disc by force, under a mounted file system: no byte of one for the other"
queue stop
host skylun cdrom insert "$TARGET" 1 one.iso --force
echo 3 >/proc/sys/vm/drop_caches
if cat /mnt/large >/run/large 2>/dev/null; then
	grep -q "$(sha256sum </run/large | cut -d' ' -f1)" /mnt/SUMS || fail "bytes of another disc"
fi
rm -f /run/large
umount /mnt
queue start
label ONE
dmesg -C # with the errors of that

step "the server is killed while the disc is read"
echo 3 >/proc/sys/vm/drop_caches
mount -t iso9660 -o ro "$cd" /mnt
while [ ! -e /run/enough ]; do
	echo 3 >/proc/sys/vm/drop_caches
	(sums)
done >/out/sums 2>&1 &
reader=$!
while [ ! -e /run/enough ]; do # without the page cache, which hides an error now and then
	dd if="$cd" of=/dev/null bs=64k iflag=direct
done >/out/direct 2>&1 &
direct=$!
sleep 1
host stop KILL
sleep 2
host serve
sleep 2
kill -0 $reader || { dmesg | tail -20; fail "reading: $(cat /out/sums)"; }
touch /run/enough
wait $reader || { dmesg | tail -20; fail "reading: $(cat /out/sums)"; }
wait $direct || { dmesg | tail -20; fail "reading: $(tail -3 /out/direct)"; }
! dmesg | grep 'I/O error' || fail "errors reached the disc"
step "read to the end"
umount /mnt

step "what is in the drive stays over a restart"
server insert two.iso
label TWO
open
host stop TERM
host serve
for _ in $(seq 100); do eject -t "$cd" 2>/dev/null && break; sleep 0.2; done
label TWO
server eject
label ""
eject -t "$cd"
! dd if="$cd" of=/dev/null count=1 2>/dev/null || fail "there is a disc after cdrom eject"
logout
