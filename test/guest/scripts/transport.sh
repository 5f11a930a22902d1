# The transport as the kernel's initiator uses it: CHAP both ways and for
# discovery, digests, many LUNs, two portals of which one is cut in the middle of
# writes, and a server that asks for a logout when it ends.

# conf NAME VALUE: a setting of iscsid.conf, for what is discovered from now on.
conf() {
	sed -i "/^#* *$1 *=/d" /etc/iscsi/iscsid.conf
	echo "$1 = $2" >>/etc/iscsi/iscsid.conf
}

# record NAME VALUE: a setting of the target's records.
record() { iscsiadm -m node -T "$TARGET" -o update -n "$1" -v "$2"; }

# denied STATUS COMMAND...: the target does not let the initiator in
# (ISCSI_ERR_LOGIN_AUTH_FAILED, 24), or does not convince it
# (ISCSI_ERR_FATAL_LOGIN, 19).
denied() {
	want=$1
	shift
	status=0
	"$@" >/run/denied 2>&1 || status=$?
	[ $status = "$want" ] || {
		cat /run/denied
		fail "status $status of: $*"
	}
}

login_at() { iscsiadm -m node -T "$1" -p "$2" --login >>/out/iscsiadm.log; }

discover() { iscsiadm -m discovery -t sendtargets -p "$PORTAL"; }

start_iscsid

step "discovery needs CHAP"
denied 24 discover
conf discovery.sendtargets.auth.authmethod CHAP
conf discovery.sendtargets.auth.username finder
conf discovery.sendtargets.auth.password 'not what finder knows'
denied 24 discover
conf discovery.sendtargets.auth.password 'what finder knows'
discover | tee /run/discovered
for want in "$PORTAL,1 $TARGET" "$SECOND,1 $TARGET" "$PORTAL,1 $MANY"; do
	grep -q "^$want\$" /run/discovered || fail "not found: $want"
done

step "a login needs CHAP"
denied 24 login_at "$TARGET" "$PORTAL"
record node.session.auth.authmethod CHAP
record node.session.auth.username alice
record node.session.auth.password 'not what alice knows'
denied 24 login_at "$TARGET" "$PORTAL"
record node.session.auth.password 'what alice knows'
login_at "$TARGET" "$PORTAL"
udevadm settle
quiet dd if="$(disk 0)" of=/dev/null bs=1M count=1 iflag=direct
logout

step "mutual CHAP"
record node.session.auth.username_in skylun
record node.session.auth.password_in 'not what skylun knows'
denied 19 login_at "$TARGET" "$PORTAL"
record node.session.auth.password_in 'what skylun knows'
for algorithm in MD5 SHA1 SHA256 SHA3-256; do
	record node.session.auth.chap_algs "$algorithm"
	login_at "$TARGET" "$PORTAL" || fail "with $algorithm"
	iscsiadm -m session -P 2 | grep -E 'username|username_in' | sed 's/^[\t ]*//' >/run/users
	grep -q '^username: alice' /run/users && grep -q '^username_in: skylun' /run/users || fail "users: $(cat /run/users)"
	logout
done

step "digests"
for digests in CRC32C/None None/CRC32C CRC32C/CRC32C; do
	record 'node.conn[0].iscsi.HeaderDigest' "${digests%/*}"
	record 'node.conn[0].iscsi.DataDigest' "${digests#*/}"
	login_at "$TARGET" "$PORTAL"
	udevadm settle
	iscsiadm -m session -P 2 | sed -n 's/^[\t ]*\(Header\|Data\)Digest: //p' | tr '\n' '/' >/run/digests
	[ "$(cat /run/digests)" = "$digests/" ] || fail "agreed on $(cat /run/digests), want $digests"
	quiet fio --eta=never --name=verify --filename="$(disk 0)" --size=16m --direct=1 --ioengine=libaio --iodepth=16 \
		--rw=randwrite --bsrange=512-256k --verify=crc32c --verify_fatal=1 --output=/out/fio
	echo "$digests $(grep -E 'WRITE:' /out/fio)"
	logout
done

step "many LUNs"
udevadm control --exit # its rules take a second for each disk; the kernel makes the devices
luns() { find /sys/class/scsi_disk/ -mindepth 1 | sed 's/.*://' | sort -n | tr '\n' ' '; }
until_luns() {
	for _ in $(seq 100); do
		[ "$(luns)" != "$1" ] || return 0
		sleep 0.1
	done
	fail "LUNs $(luns)"
}
login_at "$MANY" "$PORTAL"
until_luns "$(seq -s ' ' 0 $((COUNT - 1))) "
for device in /sys/class/scsi_disk/*; do
	echo "LUN ${device##*:}" | dd of=/dev/"$(ls "$device"/device/block)" bs=512 conv=sync oflag=direct 2>/dev/null
done
iscsiadm -m node -T "$MANY" --logout >>/out/iscsiadm.log
until_luns ""
login_at "$MANY" "$PORTAL"
until_luns "$(seq -s ' ' 0 $((COUNT - 1))) "
for device in /sys/class/scsi_disk/*; do
	read -r text </dev/"$(ls "$device"/device/block)" || :
	[ "$text" = "LUN ${device##*:}" ] || fail "LUN ${device##*:} holds $text"
done
iscsiadm -m node -T "$MANY" --logout >>/out/iscsiadm.log
until_luns ""
/usr/lib/systemd/systemd-udevd --daemon 2>/dev/null

step "two portals, one disk, digests on both"
cat >/etc/multipath.conf <<END
defaults {
	user_friendly_names yes
	find_multipaths no
	polling_interval 1
}
devices {
	device {
		vendor "SKYLUN"
		product ".*"
		path_grouping_policy multibus
		path_checker tur
		failback immediate
		fast_io_fail_tmo 5
		no_path_retry queue
	}
}
END
systemctl restart multipathd
record 'node.conn[0].timeo.noop_out_interval' 1
record 'node.conn[0].timeo.noop_out_timeout' 2
login_at "$TARGET" "$PORTAL"
login_at "$TARGET" "$SECOND"
udevadm settle
paths() { dmsetup status mpatha 2>/dev/null | grep -o '[0-9]:[0-9]* A ' | wc -l; }
until_paths() {
	for _ in $(seq 120); do
		[ "$(paths)" != "$1" ] || return 0
		sleep 0.25
	done
	multipath -ll
	fail "$(paths) paths, want $1"
}
until_paths 2
fio --eta=never --name=verify --filename=/dev/mapper/mpatha --size=96m --direct=1 --ioengine=libaio --iodepth=16 --rate=,8m \
	--rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 --output=/out/fio &
fio=$!
sleep 2
step "one portal is cut"
host link 1 down
until_paths 1
kill -0 $fio || fail "fio has ended before"
step "fio goes on over the other"
wait $fio || { cat /out/fio; fail "fio"; }
grep -E 'READ:|WRITE:' /out/fio
host link 1 up
until_paths 2

step "a server that ends asks for a logout"
: >/out/iscsid.log
host stop TERM
asked() { grep -i 'target requests logout\|async' /out/iscsid.log; }
for _ in $(seq 50); do
	! asked >/dev/null || break
	sleep 0.1
done
asked || { cat /out/iscsid.log; dmesg | tail -5; fail "the initiator has not been asked"; }
host serve
until_paths 2
quiet dd if=/dev/mapper/mpatha of=/dev/null bs=1M count=1 iflag=direct
multipath -F || :
multipathd shutdown >/dev/null || :
logout
