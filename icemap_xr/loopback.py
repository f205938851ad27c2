"""A STAC API and an asset server on 127.0.0.1, for the demonstration and for tests.

The API is rustac's (`rustac serve`), the assets come from starlette's static files, which knows range requests.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pystac
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from icemap_xr.errors import CatalogUnavailableError

_HOST = "127.0.0.1"
_START_SECONDS = 30.0


@contextmanager
def serve_catalog(items: pystac.ItemCollection, folder: Path, *, ports: tuple[int, int] | None = None) -> Iterator[str]:
    """Serve items through a STAC API, and the files below `folder` that they point to over HTTP.

    Parameters
    ----------
    items
        Items whose asset links are absolute paths below `folder`.
    folder
        Folder to serve.
    ports
        Ports of the API and of the files; free ones by default. A resumed run needs those it began with.

    Yields
    ------
    str
        Address of the STAC API.
    """
    api_port, files_port = ports or free_ports()
    with serve_files(folder, port=files_port) as files, tempfile.TemporaryDirectory() as temporary:
        content = Path(temporary) / "items.json"
        content.write_text(json.dumps(_with_urls(items, folder.resolve(), files)))
        with _serve_api(content, api_port) as api:
            yield api


@contextmanager
def serve_files(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Serve a folder over HTTP with range requests, on any free port by default; yields the address."""
    app = Starlette(routes=[Mount("/", StaticFiles(directory=folder))])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError as error:
            raise CatalogUnavailableError(
                f"port {port} of {_HOST} is taken ({error.strerror}): wait or stop its user"
            ) from None
        listener.listen()
        port = listener.getsockname()[1]
        # uvicorn's own set-up of logging would close the handlers that the caller's process already has
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@contextmanager
def _serve_api(content: Path, port: int) -> Iterator[str]:
    address = f"http://{_HOST}:{port}"
    # the wheel's own script: its command line is read from the process, not from Python's sys.argv
    script = Path(sysconfig.get_path("scripts")) / "rustac"
    command = [sys.executable, str(script), "serve", "--create-collections", "--use-duckdb", "false"]
    command += ["--addr", address, "--bind", f"{_HOST}:{port}", str(content)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait(address, process)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _wait(address: str, process: subprocess.Popen[str]) -> None:
    """Wait until the API answers."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CatalogUnavailableError(
                f"rustac serve stopped at once: {(process.communicate()[1] or '').strip()[-300:]}"
            )
        try:
            if requests.get(address, timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise CatalogUnavailableError(f"rustac serve did not answer at {address} within {_START_SECONDS:g} s")


def free_ports() -> tuple[int, int]:
    """Return two ports that are free now."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind((_HOST, 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def _with_urls(items: pystac.ItemCollection, folder: Path, files: str) -> dict[str, object]:
    """Return the items with the paths of their assets replaced by addresses on the asset server."""
    served = items.clone()
    for item in served:
        item.clear_links()
        for asset in item.assets.values():
            relative = Path(asset.href).resolve().relative_to(folder)
            asset.href = f"{files}/{quote(relative.as_posix())}"
    content: dict[str, object] = served.to_dict()
    return content
