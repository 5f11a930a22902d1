# Two members of a cluster and Pacemaker's fence_scsi, which drives sg_persist:
# each registers its key when it starts, one reserves for all who are registered,
# and the one that is healthy fences the other. The members are two initiators
# in one machine.

iscsiadm -m iface -I second --op=new >>/out/iscsiadm.log
iscsiadm -m iface -I second --op=update -n iface.initiatorname -v "$INITIATOR-second" >>/out/iscsiadm.log
start_iscsid
iscsiadm -m discovery -t sendtargets -p "$PORTAL" -I default -I second >>/out/iscsiadm.log
for iface in default second; do
	iscsiadm -m node -T "$TARGET" -p "$PORTAL" -I "$iface" --login >>/out/iscsiadm.log
done
udevadm settle -t 20
disk "$LUN" >/dev/null
set -- /sys/class/scsi_device/*:"$LUN"/device/block/*
[ $# = 2 ] || fail "$# disks instead of one for each initiator: $*"
one=/dev/${1##*/} two=/dev/${2##*/}
key1=0x5c1e0000 key2=0x5c1e0001

# What fence_scsi does.
keys() { sg_turs "$1" >/dev/null 2>&1 || :; sg_persist -n -i -k -d "$1"; }
holder() { sg_persist -n -i -r -d "$1"; }
unfence() { # DISK KEY
	sg_turs "$1" >/dev/null 2>&1 || sg_turs "$1" >/dev/null 2>&1 || :
	quiet sg_persist -n -o -I -S "$2" -Z -d "$1"
	holder "$1" | grep -q 'Key=0x\|Key = 0x' || quiet sg_persist -n -o -R -T 5 -K "$2" -d "$1"
}
writes() { dd if=/dev/zero of="$1" bs=4k count=1 seek="$2" oflag=direct 2>/run/dd; }

step unfence
unfence "$one" $key1
unfence "$two" $key2
keys "$one" >/run/keys
grep -q $key1 /run/keys && grep -q $key2 /run/keys || fail "keys: $(cat /run/keys)"
holder "$two" | grep -q "$key1" || fail "the first is not the holder: $(holder "$two")"
writes "$one" 1 || fail "the first member cannot write: $(cat /run/dd)"
writes "$two" 2 || fail "the second member cannot write: $(cat /run/dd)"

step "fence while it writes"
fio --eta=never --name=victim --filename="$one" --size=64m --offset=64m --time_based --runtime=60 --direct=1 --ioengine=libaio --iodepth=16 \
	--rw=randwrite --bs=16k --output=/out/victim 2>&1 &
victim=$!
sleep 2
kill -0 $victim || fail "fio has ended before: $(cat /out/victim)"
quiet sg_persist -n -o -A -T 5 -K $key2 -S $key1 -d "$two"
step "it is fenced"
! wait $victim || fail "the victim has written to its end: $(cat /out/victim)"
! writes "$one" 1 || fail "who is fenced can write"
keys "$two" >/run/keys
! grep -q $key1 /run/keys || fail "the victim is registered: $(cat /run/keys)"
holder "$two" | grep -q "$key2" || fail "the second is not the holder: $(holder "$two")"
writes "$two" 2 || fail "the second member cannot write: $(cat /run/dd)"

step "the server crashes"
host stop KILL
host serve
for try in 1 2 3 4 5 6 7 8 9 10; do
	sg_turs "$two" >/dev/null 2>&1 && break
	sleep 1
done
holder "$two" | grep -q "$key2" || fail "the reservation is gone: $(holder "$two")"
! writes "$one" 1 || fail "who is fenced can write after a crash of the server"

step "it comes back"
unfence "$one" $key1
writes "$one" 1 || fail "the first member cannot write again: $(cat /run/dd)"
holder "$one" | grep -q "$key2" || fail "it has taken the reservation away"
logout
