"""Serve the application until it is stopped."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket

import uvicorn
from fastapi import FastAPI

from stages.errors import ConfigError

_GRACE_S = 5
"""Time for open requests at the end."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises
    ------
    ConfigError
        If the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        # The text of a socket's error repeats the address; unknown names have negative numbers.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(
            f"{host} port {port} cannot be used ({reason}): choose others with --host and --port"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_of(app: FastAPI) -> uvicorn.Server:
    """Return the server of an application; it writes no log of its requests."""
    # The parser reports each damaged body, with a line for each faulty byte.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return uvicorn.Server(config)
