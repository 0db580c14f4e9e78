#!/bin/sh
# Takes a crypto adapter from the host and makes a mediated device of it for a guest.
#
#   free-adapter.sh ADAPTER DOMAIN...      numbers, decimal or 0x..
#
# Prints the UUID of the device. If anything is refused, everything is as before. Killed in the
# middle, or after it was successful, it can be run again: the UUID follows from the numbers.
set -eu
SYS=${SYSFS:-/sys}
MATRIX=$SYS/devices/vfio_ap/matrix
TYPE=$MATRIX/mdev_supported_types/vfio_ap-passthrough

die() {
	echo "free-adapter: $*" >&2
	exit 1
}

# One write(2), repeated if a signal came; what the kernel says about it goes to our own message.
put() {
	{ printf '%s' "$1" >"$2"; } 2>/dev/null
}

[ $# -ge 2 ] || { echo "usage: free-adapter.sh ADAPTER DOMAIN..." >&2; exit 2; }
hash=$(echo "$*" | md5sum)
adapter=$1
shift
card=$(printf 'card%02x' "$adapter") || die "$adapter is no number"
[ -e "$SYS/bus/ap/devices/$card" ] || die "there is no $card"

# The top bit of apmask is adapter 0: is this one the host's now?
mask=$(cut -c 3- "$SYS/bus/ap/apmask")
digit=$(printf '%s' "$mask" | cut -c $((adapter / 4 + 1)))
hosts=$((0x$digit >> (3 - adapter % 4) & 1))

uuid=$(echo "$hash" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-3\3-8\4-\5/')
mdev=$MATRIX/$uuid
[ -e "$mdev" ] && new=0 || new=1

undo() {
	[ "$new" = 0 ] || [ ! -e "$mdev" ] || put 1 "$mdev/remove"
	[ "$hosts" = 0 ] || put "+$adapter" "$SYS/bus/ap/apmask"
	die "$*"
}

put "-$adapter" "$SYS/bus/ap/apmask" || undo "the host does not give $card away"
[ "$new" = 0 ] || put "$uuid" "$TYPE/create" || undo "no mediated device can be made"
put "$adapter" "$mdev/assign_adapter" || undo "$card cannot be assigned"
for domain in "$@"; do
	put "$domain" "$mdev/assign_domain" || undo "domain $domain of $card is not free"
done
echo "$uuid"
