# One path is cut in the middle of writes: they go on over the other, and when
# it is back both are used again.

paths() { dmsetup status mpatha | grep -o '[0-9]:[0-9]* A ' | wc -l; }
until_paths() {
	for _ in $(seq 60); do
		[ "$(paths)" != "$1" ] || return 0
		sleep 0.5
	done
	multipath -ll
	fail "$(paths) paths, want $1"
}
findmnt -n -o SOURCE /srv/demo | grep -x /dev/mapper/mpatha
until_paths 2
fio --eta=never --name=verify --directory=/srv/demo --size=64m --direct=1 --ioengine=libaio --iodepth=16 --rate=,4m \
	--rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 --output=/out/fio &
sleep 2
step "one path is cut"
host link 1 down
until_paths 1
step "fio goes on over the other"
wait $!
grep -E 'READ:|WRITE:' /out/fio
host link 1 up
until_paths 2
step "both paths again"
rm /srv/demo/verify.*
