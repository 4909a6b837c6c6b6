"""Requests with photos for the service, good and hostile, and a service to send them to."""

from __future__ import annotations

import http.client
import io
import random
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.serve.run import listen, server_of

BOUNDARY = "boundary-of-the-test"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@contextmanager
def serving(app) -> Iterator[int]:
    """Serve an application in a thread; yield its port."""
    with listen("127.0.0.1", 0) as opened:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield opened.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(port: int, path: str, *, body: bytes | None = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def form(photos: Sequence[bytes], *, field: str = "photo", names: Sequence[str] = ()) -> bytes:
    """A multipart body with photos."""
    parts = []
    for number, photo in enumerate(photos):
        name = names[number] if names else f"{number}.jpg"
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + photo + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def send(port: int, photos: Sequence[bytes], path: str = "/locate", **headers: str) -> Reply:
    return ask(port, path, body=form(photos), Content_Type=FORM, **headers)


def content(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_bomb(width: int, height: int, *, rows: int = 1000) -> bytes:
    """A small PNG that claims to be huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    zeros = zlib.compress(bytes(min(rows * width, 20_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")


def jpeg_of_many_scans(scans: int) -> bytes:
    """A JPEG whose last scan is repeated: each repetition costs a pass over all pixels."""
    whole = content(Image.new("RGB", (64, 64)), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + b"\xff\xd9"


def hostile_requests(count: int, seed: int = 0) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Yield the kind, headers and body of requests that try to stop a service."""
    chance = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    good = content(Image.fromarray(noise))
    tiff, gif = content(Image.fromarray(noise), "TIFF"), content(Image.fromarray(noise), "GIF")
    bomb, long_header = png_bomb(60_000, 60_000), b"X-Long: " + b"a" * 200_000

    def patched(at: int, value: bytes) -> bytes:
        return good[:at] + value + good[at + len(value) :]

    size_at = good.index(b"\xff\xc0") + 5
    kinds = {
        "truncated": lambda: form([good[: chance.randrange(len(good))]]),
        "random bytes": lambda: form([chance.randbytes(chance.randrange(5000))]),
        "random bytes after a JPEG's start": lambda: form([good[:200] + chance.randbytes(3000)]),
        "changed bytes": lambda: form([patched(chance.randrange(len(good) - 9), chance.randbytes(8))]),
        "zero bytes": lambda: form([b""]),
        "zeros": lambda: form([bytes(chance.randrange(1, 100_000))]),
        "text as JPEG": lambda: form([b"this is no photo\n" * 50]),
        "bomb": lambda: form([bomb]),
        "giant JPEG": lambda: form([patched(size_at, b"\xff\xff\xff\xff")]),
        "giant TIFF": lambda: form([tiff.replace(struct.pack("<H", 120), b"\xff\xff", 1)]),
        "giant GIF": lambda: form([gif[:6] + b"\xff\xff\xff\xff" + gif[10:]]),
        "many scans": lambda: form([jpeg_of_many_scans(2000)]),
        "HTML": lambda: form([b"<svg onload=alert(1)>"], names=["<script>alert(1)</script>.svg"]),
        "names of files": lambda: form([b"x"] * 3, names=["../../etc/passwd", "/dev/zero", "C:\\a\\b\0.jpg"]),
        "many photos": lambda: form([b"x"] * 500),
        "another field": lambda: form([good], field="file"),
        "no end": lambda: form([good])[: -chance.randrange(1, 60)],
        "no parts": lambda: f"--{BOUNDARY}--\r\n".encode(),
        "other boundary": lambda: form([good]).replace(BOUNDARY.encode(), b"elsewhere"),
        "no body": lambda: b"",
        "noise as a form": lambda: chance.randbytes(2000),
        "long part header": lambda: f"--{BOUNDARY}\r\n".encode() + long_header + b"\r\n\r\nx",
        "many part headers": lambda: f"--{BOUNDARY}\r\n".encode() + b"A: b\r\n" * 5000 + b"\r\nx",
        "many empty parts": lambda: f"--{BOUNDARY}\r\n\r\n\r\n".encode() * 2000,
        "huge header": lambda: form([good]),
        "odd name": lambda: form([good], names=["\u202e\u00ff\t"]),
    }
    bare = "multipart/form-data"
    odd_types = ("", "text/plain", bare, f"{bare}; boundary=", f"{FORM}{'x' * 300}")
    names = sorted(kinds)
    for number in range(count):
        kind = names[number % len(names)]
        headers = {"Content-Type": FORM}
        if kind == "huge header":
            headers["X-Long"] = "a" * 200_000
        if chance.random() < 0.05:
            headers["Content-Type"] = chance.choice(odd_types)
        yield kind, headers, kinds[kind]()
