# In the middle of random writes the network is cut for 20 s. The initiator
# notices, comes back, I/O goes on, and everything that was written is there.

start_iscsid
login
disk=$(disk "$LUN")

step "fio begins"
fio --eta=never --name=verify --filename="$disk" --size=64m --direct=1 --ioengine=libaio --iodepth=16 --rate=,8m \
	--rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 --output=/out/fio &
fio=$!
sleep 2
step "the network is cut"
kill -0 $fio || fail "fio has ended before"
host link 0 down
sleep 20
host link 0 up
step "the network is back"
recovered "$fio"
logout
