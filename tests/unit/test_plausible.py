"""Values and answers that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from icemap_xr.errors import InputError, ModelMismatchError
from icemap_xr.plausible import check_values
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.types import Batch

SHAPE = (70, 80)


def changed(name: str, change: Any) -> xr.Dataset:
    ds = yearly_dataset(SHAPE)
    values = ds[name].values.copy()
    change(values)
    return ds.assign({name: ds[name].copy(data=values)})


@pytest.mark.parametrize("chunks", [None, {"y": 7}])
@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("grd", lambda v: v.__setitem__((0, 1, 5, 6), -9999), "grd holds -9999.*NaN"),
        ("grd", lambda v: v.__setitem__((0, 1, 5, 6), -32768), "grd holds -32768"),
        ("grd", lambda v: v.__setitem__((0, 1, 5, 6), 255), "grd holds 255"),
        ("grd", lambda v: v.__setitem__(..., 10 ** (v / 10)), "grd has no value below 0 dB.*10 log10"),
        ("insar", lambda v: v.__imul__(255), r"insar holds \d+.*0 to 1"),
        ("insar", lambda v: v.__setitem__((0, 0, 0, 0), -9999), "insar holds -9999"),
    ],
)
def test_a_map_of_impossible_values_is_refused(name: str, change: Any, match: str, chunks: Any) -> None:
    ds = changed(name, change)
    maps = (ds if chunks is None else ds.chunk(chunks)).icemap.predict
    with pytest.raises(InputError, match=match):
        maps(FakePredictor(16, 3)).compute()


def test_what_a_radar_can_measure_passes() -> None:
    check_values("grd", np.array([np.nan, -np.inf, -146.0, -30.0, 43.5], np.float32))
    check_values("grd", np.array([1e20, -10.0], np.float32))
    check_values("grd", np.full(4000, 3.0, np.float32))
    check_values("insar", np.array([-0.01, 1.01, np.nan], np.float32))
    check_values("insar", np.full((3, 4), np.nan, np.float32))
    check_values("elevation", np.array([-9999.0, 8848.0], np.float32))


@dataclass(frozen=True)
class Answering(FakePredictor):
    """Answers something else."""

    change: Any = None

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = self.change(super().__call__(batch))
        return answer


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a + 0.51, r"answers with .* to 1\.\d"),
        (lambda a: a - 1, "answers with -"),
        (lambda a: np.where(np.arange(a.shape[1])[:, None, None] == 3, np.nan, a), "nan"),
        (lambda a: a[..., 1], r"shape \(1, 16, 16\), needed is \(1, 16, 16, 2\)"),
        (lambda a: a[:, 1:], "shape"),
        (lambda a: a[..., [0]], "shape"),
    ],
)
def test_an_answer_that_is_no_probability_is_refused(change: Any, match: str) -> None:
    with pytest.raises(ModelMismatchError, match=match):
        yearly_dataset((20, 20)).icemap.predict(Answering(16, 3, change=change), batch_size=1)
