#!/bin/sh
# Does what free-adapter.sh does for adapter 5 and domain 4, without care: each part has a fault
# that `fakesys sweep` finds (see `fakesys doc sweep`).
AP=/sys/bus/ap
MATRIX=/sys/devices/vfio_ap/matrix

# A text that could not be read is waited for: hung.
config=$(cat $AP/devices/card06/config)
while [ "$config" != 1 ]; do sleep 0.1; done
# An error that is not expected: crashed.
python3 -c "print(open('$AP/devices/card06/type').read())" || exit 1
echo -5 >$AP/apmask || exit 1
# Nothing is undone: left behind, and violated if a check asks whose the adapter is. Each run makes
# another device: unrecoverable.
uuid=$(cat /proc/sys/kernel/random/uuid)
echo "$uuid" >$MATRIX/mdev_supported_types/vfio_ap-passthrough/create || exit 1
echo 5 >"$MATRIX/$uuid/assign_adapter" || exit 1
echo 4 >"$MATRIX/$uuid/assign_domain" || exit 1
# The result of a write is not looked at: silent.
echo 0 >$AP/devices/card06/online
echo "$uuid"
