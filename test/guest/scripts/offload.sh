# Commands that change much with little: copies that the server makes, tokens,
# compare and write, erasing.

start_iscsid
login
a=$(disk 0)
b=$(disk 1)

# same SKIP SEEK COUNT: blocks of a and of b are the same, without a cache.
same() {
	dd if="$a" bs=512 skip="$1" count="$3" iflag=direct 2>/dev/null >/run/a
	dd if="$b" bs=512 skip="$2" count="$3" iflag=direct 2>/dev/null | cmp - /run/a || fail "$3 blocks at $1 and $2 differ"
}

quiet dd if=/dev/urandom of="$a" bs=1M count=16 oflag=direct

step "EXTENDED COPY"
sg_copy_results --params "$a" >/out/parameters || fail "operating parameters"
grep -q 'from block device to block device' /out/parameters || fail "no block to block in $(cat /out/parameters)"
quiet sg_xcopy if="$a" of="$b" bs=512 count=8192 bpt=8192
same 0 0 8192
quiet sg_xcopy if="$a" of="$b" bs=512 skip=3 seek=16384 count=1000 --on_dst id_usage=hold list_id=7
same 3 16384 1000
sg_copy_results --status --list_id=7 "$b" >/out/status || fail "status of the copy"

step "tokens"
# hex BYTES...: bytes given in hexadecimal. The printf of dash knows octal only.
hex() { busybox printf "$(echo "$*" | tr -d ' ' | sed 's/../\\x&/g')"; }
# write_token COUNT STATUS FILE: what the token in a file stands for goes to block
# 40000 of b.
write_token() {
	{
		hex 0226 0000 00000000 0000000000000000
		cat "$3"
		hex 000000000000 0010 0000000000009c40 "$(printf %08x "$1")" 00000000
	} >/run/list
	status=0
	sg_raw --send=552 --infile=/run/list "$b" 83 11 0 0 0 0 0 0 0 8 0 0 2 28 0 0 >/run/said 2>&1 || status=$?
	[ $status = "$2" ] || fail "WRITE USING TOKEN: status $status: $(cat /run/said)"
}
hex 001e 0000 00000000 00000000 0000 0010 0000000000000064 00000800 00000000 >/run/list
quiet sg_raw --send=32 --infile=/run/list "$a" 83 10 0 0 0 0 0 0 0 9 0 0 0 20 0 0
quiet sg_raw --request=550 --outfile=/run/information "$a" 84 07 0 0 0 9 0 0 0 0 0 0 2 26 0 0
tail -c 512 /run/information >/run/token
write_token 2048 0 /run/token
same 100 40000 2048
quiet dd if=/dev/urandom of="$a" bs=512 seek=2147 count=1 oflag=direct
write_token 2048 5 /run/token # illegal request: what it stands for has changed
grep -q 'token revoked' /run/said || fail "a token of changed data: $(cat /run/said)"
{
	hex ffff0001 0000 01f8
	head -c 504 /dev/zero
} >/run/zero
write_token 1024 0 /run/zero
dd if="$b" bs=512 skip=40000 count=1024 iflag=direct 2>/dev/null | cmp -n 524288 - /dev/zero || fail "the zero token wrote something else"
same 1124 41024 512

step "COMPARE AND WRITE"
dd if="$a" bs=512 skip=5 count=1 iflag=direct of=/run/old 2>/dev/null
head -c 512 /dev/urandom >/run/new
cat /run/old /run/new >/run/both
quiet sg_compare_and_write --in=/run/both --lba=5 "$a"
dd if="$a" bs=512 skip=5 count=1 iflag=direct 2>/dev/null | cmp - /run/new || fail "COMPARE AND WRITE did not write"
status=0
sg_compare_and_write --quiet --in=/run/both --lba=5 "$a" >/run/said 2>&1 || status=$?
[ $status = 14 ] || fail "COMPARE AND WRITE of what is not there: status $status: $(cat /run/said)"

step "PRE-FETCH"
for ten in '' --10; do
	for immed in '' --immed; do
		status=0
		sg_seek --pre-fetch $ten $immed --lba=64 --num-blocks=1024 "$a" >/run/said 2>&1 || status=$?
		[ $status = 25 ] || [ $status = 0 ] || fail "PRE-FETCH: status $status: $(cat /run/said)" # 25: CONDITION MET
	done
done

step "erasing"
quiet sg_sanitize --block --quick --wait "$b"
cmp -n 67108864 "$b" /dev/zero || fail "SANITIZE left something"
sg_get_lba_status --brief --brief --lba=0 "$b" | grep -qx 1 || fail "blocks are mapped after SANITIZE"
quiet sg_format -FFF --quick --wait "$a" # the command alone
cmp -n 16777216 "$a" /dev/zero || fail "FORMAT UNIT left something"

logout
