# Nothing is left.
! iscsiadm -m session || fail "a session"
! iscsiadm -m node || fail "a record"
[ -z "$(lsblk --scsi --noheadings)" ] || fail "a disk"
