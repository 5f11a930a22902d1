# What sg3-utils make of the disk: they decode all that a unit says of itself and
# tell what does not fit together. None has anything to complain.

start_iscsid
login
disk=$(disk "$LUN")

# clean COMMAND...: it succeeds, and complains neither on its standard error nor
# in what it prints.
clean() {
	"$@" >/run/said 2>/run/complaint || fail "$*: status $?: $(cat /run/said /run/complaint)"
	{ echo "# $*"; cat /run/said; } >>/out/sg
	[ ! -s /run/complaint ] || fail "$*: $(cat /run/complaint)"
	if grep -i -e unexpected -e malformed -e 'too short' -e 'too long' -e 'too small' -e truncated -e 'bad ' -e 'not supported' \
		-e 'unable to decode' -e 'unknown' -e 'looks wrong' -e 'reserved \[' /run/said | grep -v -e 'IEEE Company_id' -e 'percentages not supported' -e 'or unknown' -e 'Inline data not supported' >/run/doubt; then
		fail "$*: $(cat /run/doubt)"
	fi
}

# says TEXT: what the command before printed has a line with TEXT.
says() { grep -q -e "$1" /run/said || fail "no line with '$1' in: $(cat /run/said)"; }

step INQUIRY
clean sg_inq "$disk"
says 'TPGS=1'
says 'CmdQue=1'
says 'Vendor identification: SKYLUN'
clean sg_inq --page=0x80 "$disk"
clean sg_inq --page=0x83 "$disk"
clean sg_inq --descriptors "$disk"
for standard in SAM-5 SPC-4 SBC-3 iSCSI; do says "$standard"; done

step "VPD pages"
for page in $(sg_vpd --page=0 --raw "$disk" | tail -c +5 | hexdump -v -e '1/1 "0x%02x "'); do
	clean sg_vpd --page="$page" "$disk"
	clean sg_vpd --page="$page" --long "$disk"
done
clean sg_vpd --page=di "$disk"
for name in 'type: NAA' 'T10 vendor' 'Relative target port' 'Target port group' 'SCSI name string'; do says "$name"; done
clean sg_vpd --page=lbpv "$disk"
says 'Unmap command supported (LBPU): 1'
says 'thin provisioned'

step "mode pages"
clean sg_modes --all "$disk"
clean sg_modes --all --six "$disk"
for control in 0 1 2 3; do clean sg_modes --control="$control" --page=0x3f,0xff "$disk"; done
clean sg_modes --list "$disk"

# The write cache off, saved, and on again.
clean sg_wr_mode --page=8 --save --mask=0,0,4 --contents=8,12,0 "$disk"
clean sg_modes --page=8 --control=3 --raw "$disk"
[ "$(sg_modes --page=8 --control=3 --raw "$disk" | tail -c 18 | head -c 1 | hexdump -e '1/1 "%02x"')" = 00 ] || fail "WCE is not saved as off"
logout
login
disk=$(disk "$LUN")
grep -q 'write through' "/sys/block/${disk##*/}/queue/write_cache" || fail "Linux takes the cache for on"
quiet dd if=/dev/urandom of="$disk" bs=64k count=4 oflag=direct
clean sg_wr_mode --page=8 --save --mask=0,0,4 --contents=8,12,4 "$disk"

step "log pages"
for page in $(sg_logs --page=0 --raw "$disk" | tail -c +5 | hexdump -v -e '1/1 "0x%02x "'); do
	clean sg_logs --page="$page" "$disk"
done
clean sg_logs --page=0x0,0xff "$disk"
clean sg_logs --all "$disk"
clean sg_logs --page=0xc "$disk"
says 'Available LBA mapping'
says 'Used LBA mapping'

step "operation codes and task management functions"
clean sg_opcodes "$disk"
clean sg_opcodes --rctd --unsorted "$disk"
clean sg_opcodes --opcode=0x28 "$disk"
clean sg_opcodes --opcode=0x9e,0x10 --rctd "$disk"
clean sg_opcodes --tmf "$disk"
says 'Logical unit reset'
clean sg_opcodes --tmf --repd "$disk"

step "target port groups"
clean sg_rtpg --decode "$disk"
says 'active/optimized'
clean sg_rtpg --extended --decode "$disk"

step LUNs
clean sg_luns "$disk"
for select in 1 2 0x10 0x11 0x12; do clean sg_luns --select="$select" "$disk"; done
clean sg_luns --decode --select=2 "$disk"
says 'REPORT LUNS well known logical unit'

step "sense and diagnostics"
clean sg_turs "$disk"
for format in '' --desc; do
	clean sh -c "sg_requests $format $disk 2>&1" # it says all of it there
	says 'No additional sense information'
done
clean sg_senddiag --list "$disk"
clean sg_senddiag --test "$disk"
for test in 1 2 5 6; do clean sg_senddiag --selftest="$test" "$disk"; done
clean sg_logs --page=0x10 "$disk"
says 'self-test code: foreground extended'

step "stop and start"
sg=/dev/$(ls "/sys/block/${disk##*/}/device/scsi_generic") # udev does not read it as soon as it is closed
clean sg_start --stop "$sg"
if sg_turs "$sg" >/run/said 2>&1; then fail "ready while stopped"; fi
clean sg_start --start "$disk"
clean sg_turs "$disk"

step "unmapped blocks"
clean sg_readcap --long "$disk"
says 'Logical block provisioning: lbpme=1, lbprz=1'
quiet dd if=/dev/urandom of="$disk" bs=1M count=4 oflag=direct
mapped() { sg_get_lba_status --brief --brief --lba="$1" "$disk"; } # 0: mapped, 1: not, 2: anchored
[ "$(mapped 0)" = 0 ] || fail "block 0 is not mapped after a write: $(mapped 0)"
clean sg_unmap --lba=0 --num=2048 --force "$disk"
[ "$(mapped 0)" = 1 ] || fail "block 0 is mapped after UNMAP: $(mapped 0)"
cmp -n 1048576 "$disk" /dev/zero || fail "unmapped blocks do not read as zeros"
clean sg_write_same --16 --unmap --lba=2048 --num=2048 "$disk"
[ "$(mapped 2048)" = 1 ] || fail "block 2048 is mapped after WRITE SAME with UNMAP"
clean sg_get_lba_status --lba=0 --maxlen=4096 "$disk"
printf 'skylun' | dd bs=512 conv=sync of=/run/pattern 2>/dev/null
for n in 10 16; do
	clean sg_write_same --"$n" --in=/run/pattern --xferlen=512 --lba=100 --num=7 "$disk"
	for lba in 100 106; do
		dd if="$disk" bs=512 skip=$lba count=1 iflag=direct 2>/dev/null | cmp - /run/pattern || fail "WRITE SAME($n) did not write block $lba"
	done
done
cmp -n 512 "$disk" /dev/zero || fail "WRITE SAME wrote more than it was told"
clean sg_verify --lba=0 --count=2048 "$disk"
clean sg_sync "$disk"

step "persistent reservations"
clean sg_persist --in --report-capabilities "$disk"
says 'Persist Through Power Loss Capable(PTPL_C): 1'
clean sg_persist --out --register --param-sark=0x5c1e "$disk"
clean sg_persist --in --read-keys "$disk"
says '0x5c1e'
clean sg_persist --out --reserve --param-rk=0x5c1e --prout-type=5 "$disk"
clean sg_persist --in --read-reservation "$disk"
says 'Write Exclusive, registrants only'
clean sg_persist --in --read-full-status "$disk"
says 'Reservation holder'
says "$INITIATOR"
clean sg_persist --out --release --param-rk=0x5c1e --prout-type=5 "$disk"
clean sg_persist --out --register-ignore --param-sark=0xa "$disk"
clean sg_persist --out --clear --param-rk=0xa "$disk"
clean sg_persist --in --read-keys "$disk"
says 'there are NO registered reservation keys'

step "copies by the target"
other=$(disk 1)
quiet dd if=/dev/urandom of="$disk" bs=1M count=4 oflag=direct
xcopy() { # it says how much on its standard error
	sg_xcopy "$@" >/run/said 2>&1 || fail "sg_xcopy $*: status $?: $(cat /run/said)"
	cat /run/said >>/out/sg
}
xcopy if="$disk" of="$other" bs=512 count=8192
cmp -n 4194304 "$disk" "$other" || fail "the other disk has other bytes"
xcopy if="$disk" of="$disk" bs=512 count=2048 seek=65536
dd if="$disk" bs=1M skip=32 count=1 iflag=direct 2>/dev/null | cmp -n 1048576 - "$disk" || fail "the copy within the disk has other bytes"
clean sg_copy_results --params "$disk"

logout
