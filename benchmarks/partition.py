"""A worker that cannot be reached in the middle of a job: does the job end, and with the right bytes?

    python benchmarks/partition.py                    20 and 60 s, over a proxy and between network namespaces
    python benchmarks/partition.py --seconds 2        the short form, as in tests/integration/test_parted.py

Scheduler and workers are processes of their own and speak TLS. Over the proxy connections stay open and nothing comes
through; between namespaces the cable is pulled, so the kernel gives up after Dask's `distributed.comm.timeouts.tcp`
(30 s), the scheduler takes the worker for lost, and another does its blocks again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import dask
from _harness import print_head, print_row

from icemap_xr.cluster import cluster
from icemap_xr.testing import chaos, namespaces
from icemap_xr.testing.nodes import Member, Nodes, certificates, nodes

BLOCKS = 24


def over_proxy(cube: Path, output: Path, seconds: float) -> dict[str, Any]:
    config = certificates(output.parent)
    with (
        nodes([Member(parted=True), Member()], config=config) as running,
        dask.config.set(config),
        cluster(running.address) as client,
    ):
        assert client is not None
        client.wait_for_workers(2, timeout=60)
        parting = threading.Thread(target=part, args=(running, output, seconds))
        parting.start()
        begun = time.monotonic()
        chaos.job(cube, output)
        took = time.monotonic() - begun
        parting.join()
        return {"seconds": round(took, 1), "workers": len(client.scheduler_info(n_workers=-1)["workers"])}


def part(running: Nodes, output: Path, seconds: float) -> None:
    while chaos.written(output) < 2:
        time.sleep(0.01)
    for proxy in running.proxies[0]:
        proxy.part()
    time.sleep(seconds)
    for proxy in running.proxies[0]:
        proxy.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[20.0, 60.0])
    options = parser.parse_args()
    ways = {"proxy": over_proxy}
    refusal = namespaces.reason()
    if refusal is None:
        ways["namespaces"] = namespaces.run
    else:
        print(f"no network namespaces: {refusal}")
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cube = chaos.make_cube(folder, BLOCKS)
        (folder / "alone").mkdir()
        chaos.job(cube, folder / "alone" / "maps.zarr", pause=0.0)
        expected = chaos.chunks(folder / "alone" / "maps.zarr")
        print_head("network", "partition s", "job s", "workers at the end", "blocks redone", "right bytes")
        for seconds in options.seconds:
            for name, way in ways.items():
                output = folder / f"{name}{seconds:g}" / "maps.zarr"
                output.parent.mkdir()
                found = way(cube, output, seconds)
                same = chaos.chunks(output) == expected
                good &= same
                row = (found["seconds"], found["workers"], chaos.calls(output) - BLOCKS, "yes" if same else "NO")
                print_row(name, f"{seconds:g}", *row)
    if not good:
        sys.exit("bytes differ")


if __name__ == "__main__":
    main()
