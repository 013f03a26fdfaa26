"""A service gone bad: it has a real identity of the mesh and sends whatever bytes it is told to.

It reads one JSON command per line on standard input and answers with one JSON line:
`{"to": "payment-service", "port": 8443, "data": BASE64, "keep": "name or null"}` gives
`{"status": 403, "body": "...", "closed": false, "error": ""}`. With `keep` the connection stays open under that name
and is used again by the next command that names it.

Run it with `hauberk run --entry evil-service -- python -m examples.payments.intruder`.
"""

import base64
import json
import socket
import ssl
import sys
from collections.abc import Callable

import hauberk

TIMEOUT = 5.0  # seconds; a server that does not answer by then is reported as silent
CHUNK = 65_536  # bytes

Connect = Callable[[str, int], socket.socket]


def read_response(wire: socket.socket) -> tuple[int, str, bool]:
    """Read one HTTP/1.1 response and return status, body and whether the server closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = wire.recv(CHUNK)
        if not chunk:
            return (int(data.split(b" ", 2)[1]) if data else 0), "", True
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    while len(body) < int(fields.get(b"content-length", b"0")):
        chunk = wire.recv(CHUNK)
        if not chunk:
            break
        body += chunk
    return int(head.split(b" ", 2)[1]), body.decode("utf-8", "replace"), fields.get(b"connection") == b"close"


def exchange(wire: socket.socket, data: bytes) -> dict[str, object]:
    """Send `data`, then read one response; a server may answer and close before it has read everything."""
    error = ""
    try:
        wire.sendall(data)
    except OSError as broken:
        error = type(broken).__name__
    try:
        status, body, closed = read_response(wire)
    except OSError as broken:
        return {"status": 0, "body": "", "closed": True, "error": type(broken).__name__}
    return {"status": status, "body": body, "closed": closed, "error": error if status == 0 else ""}


def obey(connect: Connect, command: dict[str, object], kept: dict[str, socket.socket]) -> dict[str, object]:
    """Carry out one command."""
    name = command.get("keep")
    wire = kept.get(str(name)) if name else None
    try:
        wire = wire or connect(str(command["to"]), int(str(command["port"])))
    except (OSError, hauberk.HauberkError) as refused:
        return {"status": 0, "body": "", "closed": True, "error": type(refused).__name__}
    answer = exchange(wire, base64.b64decode(str(command["data"])))
    if name and not answer["closed"]:
        kept[str(name)] = wire
    else:
        kept.pop(str(name), None)
        wire.close()
    return answer


def main() -> None:
    """Obey until standard input ends."""
    runtime = hauberk.connect()

    def connect(to: str, port: int) -> ssl.SSLSocket:
        context = runtime.client_context(to)
        plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        return context.wrap_socket(plain, server_hostname="hauberk.invalid")

    kept: dict[str, socket.socket] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(connect, json.loads(line), kept)), flush=True)
    runtime.close()


if __name__ == "__main__":
    main()
