# Brings the guest up and runs the script, as /host/init of the machine. The
# folder of the run is mounted on /host; ttyS0 takes what the script says, and
# on ttyS1 (descriptor 3) requests go to the host and answers come back.
set -u
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /out
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/udev /run/lvm
stty -F /dev/ttyS0 raw -echo
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1 4>/dev/ttyS0

# what is there already has its names: no udevadm trigger, which takes a second
/usr/lib/systemd/systemd-udevd --daemon 2>/dev/null

ip link set lo up
for n in 0 1; do
	[ -e /sys/class/net/vec$n ] || continue
	ip link set vec$n name path$n
	ip link set path$n up
done
ip addr add 192.0.2.2/24 dev path0
ip addr add 198.51.100.2/24 dev path1
modprobe -a iscsi_tcp sd_mod sr_mod sg
echo 2000 >/sys/module/block/parameters/events_dfl_poll_msecs # what distributions set

. /host/env
if [ -e /host/shell ]; then
	dmesg -n 3
	echo "@ready" >&3
	ENV=/host/lib.sh setsid -c busybox sh -i </dev/tty1 >/dev/tty1 2>&1
	status=0
else
	dmesg -C
	echo "@ready" >&3
	sh -euc '. /host/lib.sh; . /host/script' script </dev/null >&4 2>&1 4>&-
	status=$?
fi
dmesg >/out/dmesg
cp -r /out /host/
if grep -E 'WARNING:|BUG:|Oops|Call Trace|blocked for more than|Kernel panic' /out/dmesg >&4 && [ $status = 0 ]; then
	echo "FAIL the kernel complained" >&4
	status=70
fi
umount /host
echo "@exit $status" >&3
sleep 0.1
poweroff -f
