#!/bin/sh
# Takes a crypto adapter from the host and makes a mediated device of it for a guest.
#
#   free-adapter.sh ADAPTER DOMAIN...      numbers, decimal or 0x..
#
# Prints the UUID of the new device. If anything is refused, everything is as before.
set -eu
SYS=${SYSFS:-/sys}
MATRIX=$SYS/devices/vfio_ap/matrix
TYPE=$MATRIX/mdev_supported_types/vfio_ap-passthrough

die() {
	echo "free-adapter: $*" >&2
	exit 1
}

# One write(2); what the kernel says about it goes to our own message.
put() {
	{ printf '%s' "$1" >"$2"; } 2>/dev/null
}

[ $# -ge 2 ] || { echo "usage: free-adapter.sh ADAPTER DOMAIN..." >&2; exit 2; }
adapter=$1
shift
card=$(printf 'card%02x' "$adapter") || die "$adapter is no number"
[ -e "$SYS/bus/ap/devices/$card" ] || die "there is no $card"

# The top bit of apmask is adapter 0: is this one the host's now?
mask=$(cut -c 3- "$SYS/bus/ap/apmask")
digit=$(printf '%s' "$mask" | cut -c $((adapter / 4 + 1)))
hosts=$((0x$digit >> (3 - adapter % 4) & 1))

put "-$adapter" "$SYS/bus/ap/apmask" || die "the host does not give $card away"
uuid=$(cat /proc/sys/kernel/random/uuid)
mdev=$MATRIX/$uuid

undo() {
	[ ! -e "$mdev" ] || put 1 "$mdev/remove"
	[ "$hosts" = 0 ] || put "+$adapter" "$SYS/bus/ap/apmask"
	die "$*"
}

put "$uuid" "$TYPE/create" || undo "no mediated device can be made"
put "$adapter" "$mdev/assign_adapter" || undo "$card cannot be assigned"
for domain in "$@"; do
	put "$domain" "$mdev/assign_domain" || undo "domain $domain of $card is not free"
done
echo "$uuid"
