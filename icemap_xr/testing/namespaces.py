"""Workers in network namespaces of their own, whose cable is pulled: a partition as between machines.

Needs Linux, `unshare` and `ip`, and leave to make namespaces; nothing of it outlives the command. Inside the new
namespaces this module runs itself: a scheduler, a worker in each further namespace, and the job.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask

from icemap_xr.cluster import cluster
from icemap_xr.loopback import free_ports
from icemap_xr.testing import chaos
from icemap_xr.testing.nodes import as_environment, certificates

_WORKERS = 2
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
#: `ip netns` keeps its names there; a file system of the namespace's own, so that no one else sees them
_SETUP = "mount -t tmpfs none /run && ip link set lo up && exec {python} -m icemap_xr.testing.namespaces {arguments}"


def reason() -> str | None:
    """Return why this machine cannot do it; None where it can."""
    missing = [one for one in ("unshare", "ip") if shutil.which(one) is None]
    if missing:
        return f"{' and '.join(missing)} are not installed"
    done = subprocess.run([*_UNSHARE, "sh", "-c", "mount -t tmpfs none /run && ip netns add a"], capture_output=True)
    return None if done.returncode == 0 else "this system lets no user make network namespaces"


def run(cube: Path, output: Path, seconds: float, *, pause: float = 0.1) -> dict[str, Any]:
    """Map a cube on workers in namespaces, one of which cannot be reached for so long after the first blocks.

    Returns
    -------
    dict
        ``seconds`` of the job, and ``workers`` that were there at its end.
    """
    arguments = json.dumps([str(cube), str(output), seconds, pause])
    shell = _SETUP.format(python=sys.executable, arguments=f"'{arguments}'")
    done = subprocess.run([*_UNSHARE, "sh", "-c", shell], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the job ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _inside(cube: Path, output: Path, seconds: float, pause: float) -> dict[str, Any]:
    for number in range(_WORKERS):
        _connect(number)
    folder = output.parent / "tls"
    folder.mkdir()
    config = certificates(folder)
    environment = os.environ | as_environment(config)
    port, web = free_ports()
    with ExitStack() as stack:
        scheduler = ["dask", "scheduler", "--protocol", "tls", "--port", str(port), "--dashboard-address"]
        _start(stack, [*scheduler, f"127.0.0.1:{web}"], environment, folder / "scheduler.log")
        for number in range(_WORKERS):
            worker = ["dask", "worker", f"tls://10.77.{number}.1:{port}", "--nthreads", "2", "--no-nanny"]
            worker += ["--no-dashboard", "--preload", "icemap_xr.testing.chaos"]
            _start(stack, worker, environment, folder / f"worker{number}.log", namespace=f"icemap{number}")
        with dask.config.set(config), cluster(f"tls://127.0.0.1:{port}", wait=60) as client:
            assert client is not None
            client.wait_for_workers(_WORKERS, timeout=60)
            pulling = threading.Thread(target=_pull, args=(output, seconds))
            pulling.start()
            begun = time.monotonic()
            chaos.job(cube, output, pause=pause)
            took = time.monotonic() - begun
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            pulling.join()
        return {"seconds": round(took, 1), "workers": workers}


def _connect(number: int) -> None:
    """Make a namespace, and a cable to it."""
    name, here = f"icemap{number}", f"cable{number}"
    there = ["ip", "netns", "exec", name]
    for command in (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "addr", "add", f"10.77.{number}.1/24", "dev", here],
        ["ip", "link", "set", here, "up"],
        [*there, "ip", "link", "set", "lo", "up"],
        [*there, "ip", "addr", "add", f"10.77.{number}.2/24", "dev", "eth0"],
        [*there, "ip", "link", "set", "eth0", "up"],
        [*there, "ip", "route", "add", "default", "via", f"10.77.{number}.1"],
    ):
        subprocess.run(command, check=True)


def _start(
    stack: ExitStack, command: list[str], environment: dict[str, str], log: Path, *, namespace: str | None = None
) -> None:
    where = [] if namespace is None else ["ip", "netns", "exec", namespace]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*where, sys.executable, "-m", *command], env=environment, stdout=file, stderr=file, cwd=log.parent
        )
    stack.callback(process.wait)
    stack.callback(process.kill)


def _pull(output: Path, seconds: float) -> None:
    """Pull the cable of the first worker when two blocks are written, and plug it in again."""
    while chaos.written(output) < 2:
        time.sleep(0.01)
    subprocess.run(["ip", "link", "set", "cable0", "down"], check=True)
    time.sleep(seconds)
    subprocess.run(["ip", "link", "set", "cable0", "up"], check=True)


if __name__ == "__main__":
    _cube, _output, _seconds, _pause = json.loads(sys.argv[1])
    print(json.dumps(_inside(Path(_cube), Path(_output), _seconds, _pause)))
