"""A user's own Predictor, a class without `__dask_tokenize__`: its map is known by class and specification."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import manifest
from icemap_xr.cube import open_cube
from icemap_xr.errors import OutputExistsError
from icemap_xr.testing.fakes import yearly_dataset
from icemap_xr.testing.published import STORED
from icemap_xr.types import Batch, ModelSpec

SCRIPT = """
import os, signal, sys
import dask
from icemap_xr import blockjob
from icemap_xr.cube import open_cube
from icemap_xr.testing.published import STORED

blockjob.BLOCK_TARGET = 16

class Mine:
    def __init__(self):
        self.spec, self.calls, self._net = STORED.spec, 0, None

    def __call__(self, batch):
        self._net = self._net or STORED
        self.calls += 1
        if self.calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._net(batch)

model = Mine()
with dask.config.set(scheduler="synchronous"):
    open_cube(sys.argv[1]).icemap.predict(model, batch_size=1).icemap.to_zarr(sys.argv[2])
"""


class Lazy:
    """Builds its network at the first call, and holds what does not pickle."""

    def __init__(self, spec: ModelSpec, precision: str = "float32") -> None:
        self.spec, self.precision, self.lock = spec, precision, Lock()
        self.network: Any = None

    def with_precision(self, precision: str) -> Lazy:
        return Lazy(self.spec, precision)

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        self.network = self.network or STORED
        found: NDArray[np.float32] = self.network(batch)
        return found if self.precision == "float32" else found / 2


def test_a_killed_script_with_a_class_of_its_own_goes_on_where_it_was(rtc_cube: Path, tmp_path: Path) -> None:
    path = tmp_path / "maps.zarr"

    def run(dies_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, str(rtc_cube), str(path), str(dies_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def chunks(folder: Path) -> set[tuple[str, int]]:
        found = (folder / "probability" / "c").rglob("[0-9]")
        return {(str(one.relative_to(folder)), one.stat().st_ino) for one in found if one.is_file()}

    killed = run(40)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = chunks(manifest.partial_path(path))
    again = run(-1)
    assert again.returncode == 0, again.stderr
    assert set() < before < chunks(path), "nothing was resumed"
    expected = open_cube(rtc_cube).icemap.predict(STORED).probability.values
    np.testing.assert_array_equal(xr.open_zarr(path).probability.values, expected)


def test_a_model_that_changes_as_it_is_used_keeps_its_names(cube: xr.Dataset, tmp_path: Path) -> None:
    model, path = Lazy(STORED.spec), tmp_path / "maps.zarr"
    cube.icemap.predict(model).icemap.to_zarr(path)
    assert model.network is not None
    np.testing.assert_array_equal(
        cube.icemap.predict(model).icemap.to_zarr(path).probability, xr.open_zarr(path).probability
    )
    other = Lazy(replace(STORED.spec, digest="1" * 64))
    with pytest.raises(OutputExistsError, match="other inputs"):
        cube.icemap.predict(other).icemap.to_zarr(path)


@pytest.mark.parametrize("form", ["store", "arrays"])
def test_digest_precision_and_class_tell_models_apart(cube: xr.Dataset, form: str) -> None:
    class Other(Lazy):
        """The same specification."""

    def name(model: Lazy, **options: Any) -> str:
        ds = cube if form == "store" else yearly_dataset((9, 9), features=STORED.features).chunk(x=5)
        return str(ds.icemap.predict(model, **options).probability.data.name)

    plain = Lazy(STORED.spec)
    names = [
        name(plain),
        name(plain, precision="bfloat16"),
        name(Lazy(replace(STORED.spec, digest="1" * 64))),
        name(Other(STORED.spec)),
    ]
    assert len(set(names)) == len(names)
    assert name(Lazy(STORED.spec)) == names[0]


def test_fields_of_a_dataclass_tell_models_apart(cube: xr.Dataset) -> None:
    @dataclass
    class Shifted:
        """Adds a constant that is in no specification."""

        shift: float
        network: Any = field(default=None, compare=False)
        spec: ModelSpec = STORED.spec

        def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
            self.network = self.network or STORED
            found: NDArray[np.float32] = np.clip(self.network(batch) + self.shift, 0, 1).astype(np.float32)
            return found

    models = [Shifted(0.0), Shifted(0.25), Shifted(0.0, network=STORED)]
    names = [str(cube.icemap.predict(model).probability.data.name) for model in models]
    assert names[0] != names[1]
    assert names[0] == names[2]
