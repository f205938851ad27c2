"""Years of different origin in one archive: their draws, models, scenes and outlines are told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icemap_xr import sidecars
from icemap_xr.appending import append, areas_of
from icemap_xr.archive import archive, open_archive, read_outlines
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.errors import InputError, UncalibratedWarning
from icemap_xr.export import export
from icemap_xr.outlines import outlines
from icemap_xr.regions import merge
from icemap_xr.testing.archives import maps
from icemap_xr.trend import change, trend


@pytest.mark.parametrize("told", [True, False])
def test_appended_draws_are_not_paired_with_the_old_ones(tmp_path, told):
    """The same seed gives other draws for other years, so a difference would have the wrong interval."""
    first, later = maps([2019, 2020]).fillna(0.5), maps([2021, 2022], seed=3).fillna(0.5)
    with pytest.warns(UncalibratedWarning):
        given, more = (bootstrap_area(ds, block=100, n=30, seed=42) for ds in (first, later))
    if not told:  # written by other programs
        given, more = (one.drop_vars("draw_call") for one in (given, more))
    path = archive(first, tmp_path / "a.zarr", areas=given)
    append(path, later, areas=more)
    joined = areas_of(open_archive(path))
    with pytest.raises(InputError, match="2019 and 2022 were drawn apart"):
        change(joined)
    with pytest.raises(InputError, match="2019, 2020 and 2021, 2022 were drawn apart"):
        trend(joined)
    for one, (start, end) in ((given, (2019, 2020)), (more, (2021, 2022))):
        np.testing.assert_array_equal(change(joined, first=start, last=end).draws, change(one).draws)


MODELS = [{"name": name, "features": [name], "steps": 15, "window": 64, "sha256": 64 * name[0]} for name in ("a", "b")]


def test_each_year_is_described_by_the_model_that_mapped_it(tmp_path, icemap):
    path = archive(maps([2019]), tmp_path / "a.zarr", lineage={"model": MODELS[0], "stac_items": ["s", "t"]})
    assert json.loads(path.with_suffix(".json").read_text())["properties"]["mlm:name"] == "a"
    append(path, maps([2020]), lineage={"model": MODELS[1], "stac_items": ["t", "u"]})
    # no one model made the whole
    whole = json.loads(path.with_suffix(".json").read_text())
    assert not [name for name in whole["properties"] if name.startswith("mlm:")]
    assert "model" not in whole["assets"]
    east = archive(maps([2020, 2021], column=40), tmp_path / "e.zarr", region="e", lineage={"model": MODELS[1]})
    both = merge([path, east], tmp_path / "both.zarr", region="both")
    for one, models in ((path, {2019: "a", 2020: "b"}), (both, {2019: "a", 2020: "b", 2021: "b"})):
        folder = tmp_path / f"{one.stem}_out"
        export(one, folder, formats=["parquet"])
        for year, name in models.items():
            (file,) = folder.glob(f"*_{year}.json")
            item = json.loads(file.read_text())
            assert item["properties"]["mlm:name"] == name
            assert name in item["properties"]["mlm:input"][0]["description"].split()
            assert item["assets"]["model"]["href"] == sidecars._digest_name(64 * name)
    told = icemap("archive", "info", path).out
    assert "a (2019); b (2020)" in told
    assert "| 3 " in told.replace("\u2502", "|").split("scenes")[1]
    assert "a (2019); b (2020, 2021)" in icemap("archive", "info", both).out


def test_maps_of_two_models_in_one_year_name_none(tmp_path):
    paths = [
        archive(maps([2020], column=40 * i), tmp_path / f"{i}.zarr", region=str(i), lineage={"model": model})
        for i, model in enumerate(MODELS)
    ]
    export(merge(paths, tmp_path / "both.zarr", region="both"), tmp_path / "out", formats=["parquet"])
    assert "mlm:" not in (tmp_path / "out" / "both_2020.json").read_text()


def test_outlines_of_other_options_are_not_appended(tmp_path):
    first, later = maps([2020]), maps([2021])
    path = archive(first, tmp_path / "a.zarr", outlines=outlines(first, threshold=0.3))
    with pytest.raises(InputError, match=r"drawn with threshold 0\.3, the new ones with 0\.5"):
        append(path, later, outlines=outlines(later))
    append(path, later, outlines=outlines(later, threshold=0.3))
    assert read_outlines(open_archive(path)).attrs["outline_options"]["threshold"] == 0.3
    untold = outlines(maps([2022]))
    untold.attrs.clear()
    append(path, maps([2022]), outlines=untold)
    assert "outline_options" not in read_outlines(open_archive(path)).attrs
