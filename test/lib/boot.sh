#!/bin/sh
# The first process of a machine: builds its file system, then waits for the end of standard input.
# Runs in new mount, network, PID and UTS namespaces, below those of switch.sh.
#
# usage: boot.sh <machine> <path that stays visible>...
set -eu
name=$1
shift
disk=/run/disk/$name
hostname "$name"
[ -d "$disk" ] && fresh=no || fresh=yes

# What the distribution filled and the machine changes.
for dir in etc var usr/local; do
  mkdir -p "$disk/$dir/upper" "$disk/$dir/work"
  mount -t overlay \
    -o "lowerdir=/$dir,upperdir=$disk/$dir/upper,workdir=$disk/$dir/work" overlay "/$dir"
done
# What belongs to the people of the host: empty here.
mkdir -p "$disk/home"
mkdir -p -m 700 "$disk/root"
mount --bind "$disk/home" /home
mount --bind "$disk/root" /root
mount -t tmpfs -o mode=1777 tmpfs /tmp
number=0
for path; do
  mkdir -p "$path"
  mount --bind "/run/keep/$number" "$path"
  mount -o remount,bind,ro "$path"
  number=$((number + 1))
done

# A private /dev, so that /dev/log is this machine's.
mount -t tmpfs -o mode=755 tmpfs /dev
mkdir /dev/pts /dev/shm
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/full c 1 7
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/tty c 5 0
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mount -t sysfs -o ro sysfs /sys
# Last, as the disks are below it.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd
mkdir -m 1777 /run/lock

if [ $fresh = yes ]; then
  # A new machine has nothing of what the host's owner set up: no keys, no bans, no product.
  rm -rf /etc/ssh/ssh_host_* /etc/ssh/ssh_known_hosts /var/lib/fail2ban/* /var/log/fail2ban.log*
  rm -rf /etc/fail2ban-perimeter /var/lib/fail2ban-perimeter /usr/local/lib/fail2ban-perimeter
  sed -i '/^fail2ban:/d' /etc/passwd /etc/shadow /etc/group /etc/gshadow
  # Names come from /etc/hosts; an empty resolv.conf makes any other fail at once.
  rm -f /etc/resolv.conf /etc/hosts
  : >/etc/resolv.conf
  printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >/etc/hosts
  echo "$name" >/etc/hostname
fi

# Addresses are usable at once, and packets may take one way in and another way out.
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
ip link set lo up

exec /usr/bin/python3 -ISE "${0%/*}/init.py" /var/log/lab-syslog
