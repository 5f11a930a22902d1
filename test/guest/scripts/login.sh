# Discovery, login, what the disk says of itself, udev's names, logout, and
# nothing to complain for the kernel. Serves SPC-4 and SBC-3 through sg3-utils,
# which decode what they get and do not take everything.

start_iscsid

step discovery
for portal in $SECOND $PORTAL; do
	iscsiadm -m discovery -t sendtargets -p "$portal" | tee /run/discovered
	grep -q "^$portal,[0-9]* $TARGET\$" /run/discovered || fail "$portal is not announced for $TARGET"
done

step login
login
disk=$(disk "$LUN")
iscsiadm -m session -P 3 >/out/session
grep -q 'iSCSI Session State: LOGGED_IN' /out/session || fail "not logged in"
sed -n 's/^[\t ]*\(\(HeaderDigest\|DataDigest\|MaxRecv\|MaxXmit\|FirstBurst\|MaxBurst\|ImmediateData\|InitialR2T\|MaxOutst\).*\)/\1/p' /out/session

step "INQUIRY and VPD pages"
sg_inq "$disk" | tee /out/inquiry
pages=$(sg_vpd --page=0 --raw "$disk" | tail -c +5 | hexdump -v -e '1/1 "0x%02x "')
for page in $pages; do
	sg_vpd --page="$page" "$disk" >>/out/vpd 2>&1 || fail "VPD page $page"
done
for page in 0x00 0x80 0x83 0xb0 0xb1 0xb2; do
	case " $pages" in *" $page "*) ;; *) fail "no VPD page $page in: $pages" ;; esac
done

grep -q 'designator type: NAA' /out/vpd || fail "no NAA name"

step "other commands"
sg_turs "$disk"
sg_readcap --long "$disk" >/out/capacity
sg_luns "$disk"
sg_modes "$disk" >/out/modes
sg_opcodes "$disk" >/out/opcodes || fail "REPORT SUPPORTED OPERATION CODES"
sg_sync "$disk"
sg_verify --lba=0 --count=128 "$disk"
sg_requests "$disk" >/out/requests
quiet dd if="$disk" of=/dev/null bs=1M count=64 iflag=direct

step "the block layer's view"
name=${disk##*/}
for f in queue/logical_block_size queue/physical_block_size queue/write_cache queue/rotational queue/max_hw_sectors_kb queue/discard_max_bytes \
	queue/discard_granularity queue/write_zeroes_max_bytes queue/optimal_io_size device/queue_depth size ro; do
	echo "$f: $(cat /sys/block/"$name"/$f)"
done
[ "$(cat /sys/block/"$name"/queue/discard_max_bytes)" -gt 0 ] || fail "the disk cannot discard"

step "udev"
names() { udevadm info -q symlink "$disk" | tr ' ' '\n' | grep -v by-diskseq | sort; }
names | tee /out/names
grep -q "^disk/by-path/ip-$PORTAL-iscsi-$TARGET-lun-$LUN\$" /out/names || fail "no name by path"
grep -q '^disk/by-id/wwn-0x' /out/names || fail "no name by world wide name"
grep -q '^disk/by-id/scsi-3' /out/names || fail "no name by SCSI identity"

step logout
logout
udevadm settle
[ ! -e "$disk" ] || fail "$disk is still there"
[ -z "$(find /dev/disk -name '*iscsi*' -o -name 'wwn-*' 2>/dev/null)" ] || fail "udev's names are still there"

step "the same names when logged in again"
login
disk=$(disk "$LUN")
names | diff /out/names - || fail "other names"
logout

step "what the kernel has to complain"
# A new nexus begins with a unit attention (SAM-5 5.14). The other line is of
# User-Mode Linux and its console.
if dmesg --level=emerg,alert,crit,err,warn --notime |
	grep -v -e 'epollctl add err fd' -e 'Power-on or device reset occurred' >/run/complaints; then
	cat /run/complaints
	fail "there should be nothing"
fi
