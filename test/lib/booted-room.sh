#!/bin/sh
# The room that booted machines stand in: control groups of version 2 alone, as systemd-nspawn
# wants them, and the cables. Runs in mount and network namespaces of its own, until the end of its
# standard input.
#
# usage: booted-room.sh <cable>...
set -eu
umount -R /sys/fs/cgroup
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 lab /run
ip link set lo up
for cable; do
  ip link add "$cable" type veth peer name "$cable-end"
  ip link set "$cable" up
  ip link set "$cable-end" up
done
echo ready
exec cat
