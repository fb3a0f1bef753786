"""Runs a command with a listening socket as systemd hands it over (sd_listen_fds(3)).

python3 listen.py PATH GROUP COMMAND [ARGUMENT...]
"""

import os
import shutil
import socket
import sys

path, group, *command = sys.argv[1:]
os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
if os.path.exists(path):
    os.unlink(path)
given = socket.socket(socket.AF_UNIX)
given.bind(path)
shutil.chown(path, "root", group)
os.chmod(path, 0o660)
given.listen()
os.dup2(given.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(command[0], command)
