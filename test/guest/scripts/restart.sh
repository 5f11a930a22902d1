# In the middle of random writes the server is ended by $SIGNAL and started
# again, twice. The initiator comes back, I/O goes on, and everything that was
# written is there.

start_iscsid
login
disk=$(disk "$LUN")

step "fio begins"
fio --eta=never --name=verify --filename="$disk" --size=160m --direct=1 --ioengine=libaio --iodepth=16 --rate=,10m \
	--rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 --output=/out/fio &
fio=$!
for pause in 1 3; do
	sleep 3
	step "SIG$SIGNAL"
	kill -0 $fio || fail "fio has ended before"
	host stop "$SIGNAL"
	sleep $pause
	host serve
	step "the server is back"
done
recovered "$fio"
logout
