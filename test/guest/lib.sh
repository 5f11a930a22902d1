# The words of scripts in the guest.

# step TEXT: what comes next. Seconds since the script began are shown.
step() { echo "## $(elapsed) $*"; }

elapsed() { awk -v begin="$begin" '{printf "%6.2f", $1 - begin}' /proc/uptime; }

# fail TEXT: the end.
fail() {
	echo "FAIL $*"
	exit 1
}

# host VERB ARGS...: something is done on the host; prints what it says, and
# has its status.
host() {
	echo "$*" >&3
	read -r host_status <&3
	cat /host/answer
	return "$host_status"
}

# start_iscsid KEY=VALUE...: open-iscsi's daemon as Debian configures it, with
# settings.
start_iscsid() {
	for setting in "$@"; do
		sed -i "/^${setting%%=*} *=/d" /etc/iscsi/iscsid.conf
		echo "${setting%%=*} = ${setting#*=}" >>/etc/iscsi/iscsid.conf
	done
	echo "InitiatorName=$INITIATOR" >/etc/iscsi/initiatorname.iscsi
	iscsid -f >>/out/iscsid.log 2>&1 &
	until grep -q ISCSIADM_ABSTRACT /proc/net/unix; do sleep 0.1; done
}

# systemctl restart multipathd: there is no systemd, but one who does that.
systemctl() {
	[ "$*" = "restart multipathd" ] || fail "systemctl $*"
	modprobe dm-multipath
	multipathd shutdown >/dev/null 2>&1 || :
	multipathd -d >>/out/multipathd.log 2>&1 &
	until multipathd show daemon 2>/dev/null | grep -q 'running\|idle'; do sleep 0.2; done
}

# login: a session with the target at the first portal.
login() {
	iscsiadm -m discovery -t sendtargets -p "$PORTAL" >>/out/iscsiadm.log
	iscsiadm -m node -T "$TARGET" -p "$PORTAL" --login >>/out/iscsiadm.log
	udevadm settle -t 20
}

logout() { iscsiadm -m node -T "$TARGET" --logout >>/out/iscsiadm.log; }

# disk LUN: the device of a disk, once it is there.
disk() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		for device in /sys/class/scsi_device/*:"$1"/device/block/*; do
			[ -e "$device" ] && echo "/dev/${device##*/}" && return
		done
		sleep 0.2
	done
	echo "FAIL no disk with LUN $1" >&2
	return 1
}

# quiet COMMAND...: its output is shown only if it fails.
quiet() {
	"$@" >/run/quiet 2>&1 || {
		status=$?
		echo "FAIL $*: status $status"
		tail -30 /run/quiet
		return $status
	}
}

# files DIR COUNT: makes a tree of small files and a few larger ones, and
# remembers their checksums in /out/NAME.sums.
files() {
	i=0
	while [ $i -lt "$2" ]; do
		d=$1/$((i % 50))
		[ $i -ge 50 ] || mkdir -p "$d"
		echo "file $i of $2: $d" >"$d/$i"
		i=$((i + 1))
	done
	for i in 1 2 3 4; do head -c "${i}000000" /dev/urandom >"$1/large$i"; done
	(cd "$1" && find . -type f | sort | xargs sha256sum) >"/out/${1##*/}.sums"
}

# same DIR: the files are what they were.
same() { (cd "$1" && sha256sum -c --quiet "/out/${1##*/}.sums") || fail "files in $1 have changed"; }

# recovered PID: fio ends well, and the initiator has had to come back.
recovered() {
	if wait "$1"; then
		grep -E 'READ:|WRITE:' /out/fio
	else
		cat /out/fio
		dmesg | tail -40
		fail "fio"
	fi
	step "after fio"
	iscsiadm -m session -P 1 >/out/session
	grep -q 'iSCSI Session State: LOGGED_IN' /out/session || fail "not logged in"
	grep -q 'is operational after recovery' /out/iscsid.log || fail "the initiator has not noticed"
	! dmesg | grep -E 'I/O error|offline device|Medium Error|timing out command' || fail "errors reached the disk"
}

begin=$(cut -d' ' -f1 /proc/uptime)
