"""Sends small UDP packets as fast as one core can, for a while; prints how many a second.

packets.py SOURCE TARGET SECONDS
"""

import ctypes
import socket
import sys
import time

BATCH = 256
DISCARD = 9

libc = ctypes.CDLL(None, use_errno=True)


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class MsgHdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint),
        ("iov", ctypes.POINTER(IoVec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class MMsgHdr(ctypes.Structure):
    _fields_ = [("header", MsgHdr), ("sent", ctypes.c_uint)]


def rate(source, target, seconds):
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.bind((source, 0))
    sender.connect((target, DISCARD))
    text = ctypes.create_string_buffer(18)
    piece = IoVec(ctypes.addressof(text), 18)
    batch = (MMsgHdr * BATCH)()
    for message in batch:
        message.header.iov = ctypes.pointer(piece)
        message.header.iovlen = 1
    sent = 0
    # What the processor did for this: other programs on the machine count less.
    began = time.thread_time()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sent += max(0, libc.sendmmsg(sender.fileno(), batch, BATCH, 0))
    return sent / (time.thread_time() - began)


print(round(rate(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
