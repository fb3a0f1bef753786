"""The process 1 of a machine: buries orphans, writes down what comes to /dev/log, and lives no
longer than its standard input, which the test process holds.

usage: init.py <file for the messages>
"""

import os
import re
import select
import signal
import socket
import sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel then buries them without a wait().
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind('/dev/log')
os.chmod('/dev/log', 0o666)
print('ready', flush=True)
with open(sys.argv[1], 'ab', 0) as file:
    while True:
        readable, _, _ = select.select([0, log], [], [])
        if log in readable:
            text = log.recv(65536).rstrip(b'\0\n').replace(b'\n', b'#012')
            file.write(re.sub(rb'^<\d+>', b'', text) + b'\n')
        if 0 in readable and not os.read(0, 4096):
            break
