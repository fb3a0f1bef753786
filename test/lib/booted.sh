#!/bin/sh
# A computer with systemd: a disk over a base system, booted by systemd-nspawn, again after each
# reboot. Runs in mount, network and PID namespaces of its own; ends with its standard input.
#
# usage: booted.sh <name> <base system> <its control group> <interfaces(5)> <hosts(5)> <cable>...
set -eu
name=$1 base=$2 group=/sys/fs/cgroup/$3 interfaces=$4 hosts=$5
shift 5
mount -t tmpfs -o mode=755 lab /mnt
mkdir /mnt/upper /mnt/work /mnt/disk
mount -t overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/disk
cd /mnt/disk
: >etc/machine-id
echo "$name" >etc/hostname
echo "$interfaces" >etc/network/interfaces
echo "$hosts" >>etc/hosts
rm -f etc/ssh/ssh_host_*
chroot . ssh-keygen -qA
for cable; do cables="${cables-} --network-macvlan=$cable"; done
mkdir "$group"
(
  echo 0 >"$group/cgroup.procs"
  while :; do
    code=0
    # shellcheck disable=SC2086
    systemd-nspawn -q -D /mnt/disk --boot --register=no --keep-unit --machine="$name" \
      --hostname="$name" --private-network $cables --console=read-only --resolv-conf=off \
      --timezone=off --link-journal=no </dev/null >>/mnt/console 2>&1 || code=$?
    [ "$code" = 133 ] || break
  done
) &
echo ready
exec cat
