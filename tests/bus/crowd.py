"""Many connections of one user in a program of its own: they send what they are given, read only if told.

Reads one JSON request a line, writes one JSON answer a line.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys


def connect(path: str, hello: bytes) -> socket.socket:
    """A connection that has said Hello."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(path)
    connection.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    connection.recv(512)
    connection.sendall(b"NEGOTIATE_UNIX_FD\r\n")
    connection.recv(512)
    connection.sendall(b"BEGIN\r\n" + hello)
    data = b""
    while b"NameAcquired" not in data:
        data += connection.recv(65536)
    return connection


def main(path: str, count: int, hello: bytes) -> None:
    """Serve requests until standard input ends."""
    crowd = [connect(path, hello) for _ in range(count)]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: object = None
        if request["do"] == "send":
            data = base64.b64decode(request["data"])
            for member in crowd:
                member.sendall(data)
        elif request["do"] == "read":  # until each has received this text so many times
            wanted = request["text"].encode()
            answer = 0
            for member in crowd:
                received = b""
                while received.count(wanted) < request["times"]:
                    received += member.recv(1 << 20)
                answer += received.count(wanted)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), base64.b64decode(sys.argv[3]))
