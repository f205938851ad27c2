"""A scheduler and workers as processes of their own, with TLS, resources, and a network between them that can fail."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask

from icemap_xr.testing import chaos

_PIECE = 65536


def certificates(folder: Path) -> dict[str, str]:
    """Make certificates, and return Dask's configuration for them: everybody must have one."""
    from distributed.security import Security

    made = Security.temporary()
    found = {"distributed.comm.require-encryption": "true"}
    for role in ("scheduler", "worker", "client"):
        keys = made.get_tls_config_for_role(role)
        for name, content in (("ca-file", keys["ca_file"]), ("cert", keys["cert"]), ("key", keys["key"])):
            path = folder / f"{role}-{name}.pem"
            path.write_text(content)
            path.chmod(0o600)
            key = "distributed.comm.tls.ca-file" if name == "ca-file" else f"distributed.comm.tls.{role}.{name}"
            found[key] = str(path)
    return found


def as_environment(config: Mapping[str, str]) -> dict[str, str]:
    """Return a configuration of Dask as environment variables."""
    return {f"DASK_{key.upper().replace('.', '__').replace('-', '_')}": value for key, value in config.items()}


@dataclass
class Proxy:
    """Forwards one port of 127.0.0.1 to another, until it is told to stop: a network that is parted.

    Parameters
    ----------
    target
        Port that is forwarded to.
    """

    target: int
    port: int = 0
    _open: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _sockets: list[socket.socket] = field(default_factory=list)

    def part(self) -> None:
        """Forward nothing any more; connections stay open, as over a cable that is pulled."""
        self._open.clear()

    def join(self) -> None:
        """Forward again, beginning with what was held back."""
        self._open.set()

    def cut(self) -> None:
        """End all connections."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def serving(self) -> Iterator[Proxy]:
        """Forward for the length of a `with` block."""
        self._open.set()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
            thread = threading.Thread(target=self._accept, args=(server,))
            thread.start()
            try:
                yield self
            finally:
                self._ended.set()
                self._open.set()
                self.cut()
                thread.join()

    def _accept(self, server: socket.socket) -> None:
        pumps = []
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            while not self._ended.is_set():
                if not selector.select(timeout=0.05):
                    continue
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    pumps.append(threading.Thread(target=self._pump, args=(source, sink)))
                    pumps[-1].start()
        self.cut()
        for pump in pumps:
            pump.join()
        for one in self._sockets:
            one.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                self._open.wait()
                sink.sendall(piece)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@dataclass
class Nodes:
    """A running cluster.

    Parameters
    ----------
    address
        Of the scheduler.
    scheduler, workers
        Their processes.
    proxies
        For each worker what lies between it and all others: to the scheduler and back.
    """

    address: str
    scheduler: Any
    workers: list[Any] = field(default_factory=list)
    proxies: list[tuple[Proxy, Proxy]] = field(default_factory=list)


@dataclass(frozen=True)
class Member:
    """A worker.

    Parameters
    ----------
    resources
        Dask's resources.
    parted
        Whether its network can fail.
    """

    resources: Mapping[str, float] = field(default_factory=dict)
    parted: bool = False


@contextmanager
def nodes(
    members: Sequence[Member], *, config: Mapping[str, str] | None = None, port: int = 0, **more: str
) -> Iterator[Nodes]:
    """Start a scheduler and workers, each a process of its own; with certificates in `config` they speak TLS.

    Parameters
    ----------
    members
        Workers.
    config
        Configuration of Dask for all of them.
    port
        Of the scheduler; 0 for any.
    more
        Further configuration, dots as two underscores.
    """
    own = dict(config or {}) | {key.replace("__", "."): value for key, value in more.items()}
    here, there = chaos._context().Pipe(duplex=False)
    with ExitStack() as stack:
        scheduler = chaos._start(_scheduler, there, own, port)
        stack.callback(chaos.kill, scheduler)
        found = Nodes(here.recv(), scheduler)
        for member in members:
            join(found, member, own, stack)
        yield found


def join(cluster: Nodes, member: Member, config: Mapping[str, str], stack: ExitStack) -> None:
    """Let a worker join a running cluster; it ends with the stack."""
    address, listen, contact = cluster.address, 0, None
    if member.parted:
        scheme, _, rest = address.partition("://")
        out = stack.enter_context(Proxy(int(rest.rpartition(":")[2])).serving())
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = free.getsockname()[1]
        back = stack.enter_context(Proxy(listen).serving())
        cluster.proxies.append((out, back))
        address, contact = f"{scheme}://127.0.0.1:{out.port}", f"{scheme}://127.0.0.1:{back.port}"
    process = chaos._start(_worker, address, dict(config), dict(member.resources), listen, contact)
    stack.callback(chaos.kill, process)
    cluster.workers.append(process)


def _scheduler(pipe: Any, config: dict[str, str], port: int) -> None:
    from distributed import Scheduler

    chaos._silence()

    async def serve() -> None:
        options: dict[str, Any] = {"host": "127.0.0.1", "port": port, "dashboard_address": "127.0.0.1:0"}
        async with Scheduler(protocol=_protocol(config), **options) as scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    with dask.config.set(config):
        asyncio.run(serve())


def _worker(
    address: str, config: dict[str, str], resources: dict[str, float], listen: int, contact: str | None
) -> None:
    from distributed import Worker

    chaos._silence()

    async def serve() -> None:
        options: dict[str, Any] = {"nthreads": 2, "dashboard": False, "host": "127.0.0.1", "port": listen}
        async with Worker(
            address, resources=resources, contact_address=contact, protocol=_protocol(config), **options
        ) as worker:
            await worker.finished()

    with dask.config.set(config):
        asyncio.run(serve())


def _protocol(config: Mapping[str, str]) -> str:
    return "tls" if "distributed.comm.tls.ca-file" in config else "tcp"
