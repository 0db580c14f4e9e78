#!/bin/sh
# The tests of free-adapter.sh for those who have nothing but a shell:  sh test-free-adapter.sh
#
# Prints one line per test, as TAP wants it; the exit status says whether all went well.
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
FAKESYS=${FAKESYS:-fakesys}
SCRIPT=$HERE/free-adapter.sh
failed=0
count=0

report() { # STATUS NAME
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		failed=1
	fi
}

# --- 1. A mount: the script is told where the fake /sys is -------------------------------------

POINT=$(mktemp -d)
end() {
	$FAKESYS umount "$POINT" 2>/dev/null || $FAKESYS umount --lazy "$POINT" 2>/dev/null
	rmdir "$POINT"
}
trap end EXIT
trap 'exit 130' INT TERM

$FAKESYS mount "$POINT" >/dev/null || exit 1
export SYSFS="$POINT/sys"
uuid=$(sh "$SCRIPT" 5 4 0x47)
report $? "the adapter is freed"

test "$(cat "$SYSFS/devices/vfio_ap/matrix/$uuid/matrix")" = "$(printf '05.0004\n05.0047')"
report $? "its queues are in the matrix"

message=$(sh "$SCRIPT" 5 4 2>&1)
test "$message" = "free-adapter: domain 4 of card05 is not free"
report $? "what another device has is refused"

test "$(ls "$SYSFS/bus/mdev/devices")" = "$uuid"
report $? "and nothing of it is left"

# Why was a write refused? The last line below fakesys/ that no real machine has.
echo nonsense 2>/dev/null >"$SYSFS/bus/ap/apmask"
grep -q 'sys/bus/ap/apmask EINVAL' "$SYSFS/kernel/debug/fakesys/last_error"
report $? "the reason of a refusal can be read"

# --- 2. exec: the script is not told anything, its /sys is the fake -----------------------------

unset SYSFS
$FAKESYS exec -- true
if [ $? = 125 ]; then
	echo "ok $((count + 1)) - # SKIP no private namespaces here"
else
	$FAKESYS exec --profile 6.18 -- sh "$SCRIPT" 6 0xab >/dev/null
	report $? "it works with the real path, on another kernel"

	$FAKESYS exec --preset empty -- sh "$SCRIPT" 6 0xab 2>/dev/null
	test $? = 1
	report $? "each exec has a machine of its own, with the hardware that is asked for"
fi

[ "$failed" = 0 ]
