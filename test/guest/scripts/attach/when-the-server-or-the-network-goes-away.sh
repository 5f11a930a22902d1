# The settings are those of the session.
iscsiadm -m session -P 2 | grep 'Recovery Timeout: 600'
[ "$(cat /sys/class/scsi_device/*:0/device/queue_depth)" = 128 ] || fail "another queue depth"
