#!/bin/sh
# The ground that a lab's machines stand on: their disks, and the switch that their cables end in.
# Runs in a mount and a network namespace of its own. Standard input is the life line: when the
# test process ends, in whatever way, it closes, and the namespaces go with all that is in them.
#
# usage: switch.sh <folder for the disks, or - for memory> <path that stays visible>...
set -eu
disks=$1
shift
if [ "$disks" = - ]; then
  mount -t tmpfs -o mode=755 lab /run
else
  mount --bind "$disks" /run
fi
# A machine's own /root, /home and /tmp would hide the project or node if they live there.
number=0
for path; do
  mkdir -p "/run/keep/$number"
  mount --bind "$path" "/run/keep/$number"
  number=$((number + 1))
done
# The switch itself must stay silent: it is no host of any segment.
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
echo ready
exec >/dev/null
cat
[ "$disks" = - ] && exit
cd /
number=0
for path; do
  umount -l "/run/keep/$number"
  number=$((number + 1))
done
# The machines lose their life lines at the same moment and may still write for an instant.
umount -l /run
tries=0
until rm -rf "$disks" || [ $tries -ge 50 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
