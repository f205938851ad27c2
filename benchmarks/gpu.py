"""A network on a GPU: pixels per second, how busy the GPU is, and which share of its peak is used.

    python benchmarks/gpu.py [--model NAME] [--peak 67] [--batch 1 4 16] [--seconds 10]

Without `--model` a network of the published size with random weights is run. `--peak` is what the GPU's data sheet
gives for dense products, in TFLOPS, once for each precision in the order of `--precision`; without it no share is
printed. Utilisation is what nvidia-smi says, every half second. Pixels are input pixels; with 50 % overlap a map has a
quarter of them. On a machine without a GPU the program says so and ends.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from _harness import print_head, print_row

import icemap_xr as ix
from icemap_xr.measuring import random_model
from icemap_xr.models.icemapper import Architecture
from icemap_xr.models.predictor import KerasPredictor


def share_of_peak(windows_per_second: float, flops_per_window: int, peak_tflops: float) -> float:
    """Return the share 0..1 of a peak that a rate makes use of."""
    return windows_per_second * flops_per_window / (peak_tflops * 1e12)


def utilisation(text: str) -> list[float]:
    """Read nvidia-smi's answer, one percentage per GPU; what is no number (not supported) is left out."""
    return [float(line) for line in map(str.strip, text.splitlines()) if line.replace(".", "", 1).isdigit()]


@contextmanager
def watched(samples: list[float]) -> Iterator[None]:
    """Collect the first GPU's utilisation in % until the block ends; nothing where nvidia-smi is missing."""
    stop = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def watch() -> None:
        while not stop.wait(0.5):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            samples.extend(utilisation(done.stdout)[:1])

    thread = threading.Thread(target=watch, daemon=True)
    if shutil.which(command[0]):
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()


def rate(model: KerasPredictor, batch_size: int, seconds: float) -> float:
    """Return windows per second after two calls that build and warm the network."""
    spec = model.spec
    shape = (batch_size, spec.steps, spec.window, spec.window, len(spec.features))
    batch = np.random.default_rng(0).random(shape, np.float32)
    for _ in range(2):
        model(batch)
    calls, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        model(batch)
        calls += 1
    return calls * batch_size / (time.perf_counter() - begun)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name, bundle folder or .h5; random weights of the published size by default")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--peak", type=float, nargs="+", help="peak TFLOPS, one per precision")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    arguments = parser.parse_args()
    if arguments.peak and len(arguments.peak) != len(arguments.precision):
        parser.error(f"--peak needs {len(arguments.precision)} numbers, one for each of --precision")
    from icemap_xr.models._backend import tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        print(
            "TensorFlow sees no GPU here: nothing was measured. Install icemap-xr[gpu] on a machine with an NVIDIA GPU."
        )
        return
    print(f"{len(devices)} GPU(s), first: {tf.config.experimental.get_device_details(devices[0]).get('device_name')}\n")
    with tempfile.TemporaryDirectory() as name:
        if arguments.model:
            model = ix.load_model(arguments.model)
        else:
            model = random_model(Path(name) / "random", Architecture(features=2, window=384))
        assert isinstance(model, KerasPredictor)
        measure(model, arguments)


def measure(model: KerasPredictor, arguments: argparse.Namespace) -> None:
    """Print a row for each precision and batch size; a batch that does not fit is said to, and ends its precision."""
    from icemap_xr.models._backend import tf

    print_head("precision", "batch", "windows/s", "Mpx/s", "TFLOPS", "share of peak", "utilisation %")
    peaks = arguments.peak or [None] * len(arguments.precision)
    for precision, peak in zip(arguments.precision, peaks, strict=True):
        one = model.with_precision(precision)
        for batch_size in arguments.batch:
            samples: list[float] = []
            try:
                with watched(samples):
                    windows = rate(one, batch_size, arguments.seconds)
            except tf.errors.ResourceExhaustedError:
                print_row(precision, batch_size, "does not fit", "", "", "", "")
                break
            tflops = windows * one.flops_per_window / 1e12
            share = f"{share_of_peak(windows, one.flops_per_window, peak):.3f}" if peak else ""
            busy = f"{np.mean(samples):.0f}" if samples else ""
            pixels = windows * one.spec.window**2 / 1e6
            print_row(precision, batch_size, f"{windows:.2f}", f"{pixels:.2f}", f"{tflops:.2f}", share, busy)


if __name__ == "__main__":
    main()
