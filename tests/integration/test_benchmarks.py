"""The benchmark scripts: the GPU's arithmetic, and what it says where there is no GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_gpu", FOLDER / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_share_of_a_peak(gpu: ModuleType) -> None:
    # 2 windows of 3 TFLOP each second on a GPU of 60 TFLOPS
    assert gpu.share_of_peak(2.0, 3 * 10**12, 60.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "found"), [("97\n", [97.0]), ("12\n80\n", [12.0, 80.0]), ("[N/A]\n", []), ("", []), (" 5.5 \n", [5.5])]
)
def test_what_nvidia_smi_says(gpu: ModuleType, text: str, found: list[float]) -> None:
    assert gpu.utilisation(text) == found


def test_without_a_gpu_it_says_so_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "gpu.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.returncode == 0, done.stderr
    assert "no GPU" in done.stdout


def test_a_peak_for_each_precision_is_asked_for() -> None:
    command = [sys.executable, FOLDER / "gpu.py", "--peak", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--peak needs 2 numbers" in done.stderr


def test_simulated_regions_stay_hard_for_single_pixels() -> None:
    command = [
        sys.executable,
        str(FOLDER / "difficulty.py"),
        "--train",
        "1000",
        "1001",
        "--test",
        "2100",
        "--size",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if "logistic regression" in line)
    assert 0 < float(row.split("|")[2]) <= 0.85
