#!/bin/sh
# The door of the firewall: the forced command of every server's key. It runs with an empty
# environment as the unprivileged user fail2ban, lets a few words pass, and hands them on to the one
# program that it may run as root. The owner is an argument in the keys file, so a server cannot
# choose it; the request travels on standard input and is never part of a command line.
#
#   gate web1        with SSH_ORIGINAL_COMMAND='banip fail2ban-sshd 192.0.2.1 22 tcp'
set -fu
LC_ALL=C
export LC_ALL
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

refuse() {
  printf 'firewall: %s\n' "$2" >&2
  exit "$1"
}

owner=${1-}
request=${SSH_ORIGINAL_COMMAND-}
peer=${SSH_CONNECTION-}
peer=${peer%% *}
# A link-local peer comes with the name of an interface, which no ban ever has.
peer=${peer%%%*}

case $owner in
  '' | *[!A-Za-z0-9_.-]*) refuse 78 'Cannot read the owner in the keys file' ;;
esac
case $request in
  *[!A-Za-z0-9_.:@,/\ -]*) refuse 65 'Cannot read the command: unexpected character' ;;
  true) exit 0 ;;
  firewall | checkfw | 'checkfw @'* | listips | 'listips '* | fluships | 'fluships '* | 'banip '* | 'unbanip '* | 'blocked '*) ;;
  '') refuse 64 'No command: banip, unbanip, listips, fluships, blocked, checkfw, firewall or true' ;;
  *) refuse 64 'Unknown command: banip, unbanip, listips, fluships, blocked, checkfw, firewall or true' ;;
esac
[ "${#request}" -le 512 ] || refuse 65 'Cannot read a command of more than 512 bytes'

send() {
  printf '%s\n' "owner $owner $peer" "$request"
  # Only a session reads on; cat ends with either side, and keeps no descriptor of ours open.
  [ "$request" != firewall ] || exec cat 2>/dev/null
}

send | exec sudo -n "${0%/*}/perimeter"
