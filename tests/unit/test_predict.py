"""Prediction: the published formula, areas of interest, cropped cubes, stores, graphs and refusals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pystac
import pytest
import shapely
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import blockjob, schema
from icemap_xr.cube import build_cube, open_cube
from icemap_xr.errors import (
    CroppedCubeWarning,
    GridError,
    IcemapError,
    InputError,
    ModelMismatchError,
    ModelMismatchWarning,
    SchemaError,
)
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.fakes import FakePredictor, small_grid, yearly_dataset
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster
from icemap_xr.types import Batch, InputSpec, ModelSpec

SHAPE = (37, 45)
MODEL = FakePredictor(8, 3)
STORED = FakePredictor(8, 3, ("rtc", "insar"))


@dataclass(frozen=True)
class Counting:
    """Counts the windows that a model is given."""

    model: FakePredictor = MODEL
    batches: list[int] = field(default_factory=list)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        return self.model(batch)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cube")
    rng = np.random.default_rng(0)
    items = []
    for month in (2, 6, 10):
        raster = write_raster(folder / f"rtc{month}.tif", rng.lognormal(-3, 1, SHAPE))
        items.append(rtc_item(raster, f"2020-{month:02d}-01"))
        pair = write_raster(folder / f"pair{month}.tif", rng.random(SHAPE))
        items.append(pair_item(pair, f"2020-{month:02d}-01", f"2020-{month:02d}-13"))
    build_cube(pystac.ItemCollection(items), small_grid(SHAPE), folder / "cube.zarr", steps=3, chunk=16)
    return folder / "cube.zarr"


@pytest.fixture
def cube(path: Path) -> xr.Dataset:
    return open_cube(path)


def probability(ds: xr.Dataset, model: Any = MODEL, **options: Any) -> NDArray[np.float32]:
    values: NDArray[np.float32] = ds.icemap.predict(model, **options).probability.values
    return values


def published(ds: xr.Dataset, model: FakePredictor) -> NDArray[np.float64]:
    """Map the first year as upstream's apply.py does, with half-overlapping windows."""
    scaled = []
    for one in model.spec.features:
        raw = ds[one.name].values[0].astype(np.float64)
        values = (raw - one.minimum) / (one.maximum - one.minimum)
        values[~np.isfinite(values)] = 0
        values[values > 100] = 0
        scaled.append(values)
    stack = np.stack(scaled, axis=-1)
    window, stride = model.window, model.window // 2
    height, width = stack.shape[1:3]
    axis = np.linspace(-1, 1, window)
    distance = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    weights = np.exp(-(distance**2) / (2 * 0.5**2)) / (np.sqrt(2 / np.pi) * 0.5)
    padded = np.zeros((stack.shape[0], height + window, width + window, stack.shape[3]))
    padded[:, :height, :width] = stack
    total, weight_sum = (np.zeros((height + window, width + window)) for _ in range(2))
    for row in range(0, height, stride):
        for column in range(0, width, stride):
            part = np.s_[row : row + window, column : column + window]
            out = model(padded[:, *part][None].astype(np.float32))[0, :, :, 1]
            total[part] += weights * out
            weight_sum[part] += weights
    result: NDArray[np.float64] = (total / np.where(weight_sum > 0, weight_sum, 1))[:height, :width]
    return result


@pytest.mark.parametrize("shape", [(37, 45), (33, 16), (16, 16), (17, 61), (5, 3), (1, 1), (1, 40)])
def test_equals_the_published_formula(shape: tuple[int, int]) -> None:
    model = FakePredictor(16, 4)
    ds = yearly_dataset(shape, steps=4)
    rng = np.random.default_rng(3)
    for bad in (np.nan, np.inf, -np.inf, 1e6):
        for name in ("grd", "insar"):
            # not in the first step, so that each pixel is observed
            ds[name].values[0, 1:][rng.random((3, *shape)) < 0.03] = bad
    np.testing.assert_allclose(probability(ds, model)[0], published(ds, model), atol=1e-6)


def test_the_formula_at_its_published_size() -> None:
    model = FakePredictor(384, 2)
    ds = yearly_dataset((391, 577), steps=2)
    np.testing.assert_allclose(probability(ds, model)[0], published(ds, model), atol=1e-6)


def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch, cube: xr.Dataset) -> None:
    expected = probability(cube, STORED)
    for target in (8, 24):
        monkeypatch.setattr(blockjob, "_BLOCK_TARGET", target)
        result = cube.icemap.predict(STORED).probability
        assert max(result.chunks[1]) <= target
        np.testing.assert_array_equal(result.values, expected)


def test_the_result_says_what_it_is(cube: xr.Dataset) -> None:
    maps = cube.icemap.predict(STORED, overlap=0.25)
    array = schema.validate_maps(maps, "test")
    assert array.dtype == np.float32
    assert maps.odc.geobox == cube.odc.geobox
    assert maps.attrs["stride"] == 6
    assert maps.attrs["model_sha256"] == STORED.spec.digest
    assert RegionGrid.from_dataset(maps) == RegionGrid.from_dataset(cube)
    assert 0 <= float(maps.probability.min()) <= float(maps.probability.max()) <= 1


def test_all_classes(cube: xr.Dataset) -> None:
    for ds in (cube, cube.icemap.yearly(), cube.icemap.yearly().load()):
        maps = ds.icemap.predict(STORED, classes="all").load()
        assert maps.class_probability.dims == ("year", "class", "y", "x")
        assert maps["class"].values.tolist() == ["not_glacier", "glacier"]
        np.testing.assert_array_equal(maps.class_probability.sel({"class": "glacier"}), maps.probability)
        np.testing.assert_array_equal(maps.probability, probability(cube, STORED))
        np.testing.assert_allclose(maps.class_probability.sum("class"), 1, atol=1e-6)


def test_named_inputs_are_given_by_name() -> None:
    class Named:
        @property
        def spec(self) -> ModelSpec:
            grd, insar = MODEL.spec.features
            return replace(MODEL.spec, inputs=(InputSpec("a", (insar,)), InputSpec("b", (grd,))))

        def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
            assert not isinstance(batch, np.ndarray)
            assert set(batch) == {"a", "b"}
            return MODEL(np.concatenate([batch["b"], batch["a"]], axis=-1))

    ds = yearly_dataset(SHAPE)
    np.testing.assert_array_equal(probability(ds, Named()), probability(ds))


# --- nodata


def test_what_was_never_observed_is_nan() -> None:
    ds = yearly_dataset(SHAPE, years=(2020, 2021))
    ds.grd.values[0, :, 4, 5] = np.nan
    ds.insar.values[0, :, 6, 7] = np.inf
    ds.grd.values[0, 0, 8, 9] = np.nan
    ds.insar.values[1] = np.nan
    for form in (ds, ds.chunk(y=9)):
        out = probability(form)
        assert np.isnan(out[1]).all()
        assert sorted(zip(*np.nonzero(np.isnan(out[0])), strict=True)) == [(4, 5), (6, 7)]


# --- part of a map


def test_an_area_of_interest_keeps_values_and_runs_no_other_window() -> None:
    ds = yearly_dataset(SHAPE)
    full, counter = probability(ds), Counting()
    corner = shapely.box(500_000 + 300, 8_700_000 - 200, 500_000 + 350, 8_700_000 - 100)
    lonlat = RegionGrid.from_dataset(ds).geobox.crs.proj
    import geopandas as gpd

    frame = gpd.GeoDataFrame(geometry=[corner], crs=lonlat)
    inside = np.zeros(SHAPE, bool)
    inside[10:20, 30:35] = True
    out = probability(ds, counter, aoi=frame)[0]
    np.testing.assert_array_equal(out, np.where(inside, full[0], np.nan))
    rows = [s for s in range(0, 37, 4) if s < 20 and s + 8 > 10]
    columns = [s for s in range(0, 45, 4) if s < 35 and s + 8 > 30]
    assert sum(counter.batches) == len(rows) * len(columns)
    mask = xr.DataArray(np.arange(37)[:, None] + np.zeros(45) < 15, dims=("y", "x"))
    both = probability(ds, aoi=frame, mask=mask)[0]
    np.testing.assert_array_equal(both, np.where(inside & mask.values, full[0], np.nan))


def test_an_area_elsewhere_gives_no_value_and_runs_nothing() -> None:
    counter = Counting()
    assert np.isnan(probability(yearly_dataset(SHAPE), counter, aoi=(-60.0, 10.0, -59.0, 11.0))).all()
    assert counter.batches == []


def test_area_of_interest_from_the_store(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockjob, "_BLOCK_TARGET", 16)
    bounds = shapely.Point(500_200, 8_699_800).buffer(90)
    import geopandas as gpd

    aoi = gpd.GeoSeries([bounds], crs="EPSG:32633")
    out, full = probability(cube, STORED, aoi=aoi), probability(cube, STORED)
    y, x = np.meshgrid(cube.y.values, cube.x.values, indexing="ij")
    inside = shapely.contains_xy(bounds, x, y)
    assert 200 < inside.sum() < 300
    np.testing.assert_array_equal(out[0], np.where(inside, full[0], np.nan))


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (xr.DataArray(np.ones((3, 4), bool), dims=("y", "x")), r"mask.*\(37, 45\).*own grid"),
        (xr.DataArray(np.ones((45, 37), bool), dims=("x", "y")), "mask"),
        (xr.DataArray(np.ones(SHAPE, int), dims=("y", "x")), "int64.*boolean"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: xr.DataArray, match: str) -> None:
    with pytest.raises(InputError, match=match):
        probability(yearly_dataset(SHAPE), mask=mask)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("shift", [5.0, -10.0, 1000.0])
def test_a_mask_that_lies_elsewhere_is_refused(axis: str, shift: float) -> None:
    ds = yearly_dataset(SHAPE)
    mask = (ds.grd[0, 0] < 0).drop_vars("year")
    probability(ds, mask=mask)
    with pytest.raises(InputError, match=f"another grid along {axis}"):
        probability(ds, mask=mask.assign_coords({axis: mask[axis] + shift}))


# --- cropped cubes


@pytest.mark.parametrize("origin", [(8, 12), (5, 7), (0, 3)])
def test_a_cropped_cube_warns_and_keeps_the_regions_windows(cube: xr.Dataset, origin: tuple[int, int]) -> None:
    full = probability(cube, STORED)
    part = cube.isel(y=slice(origin[0], 33), x=slice(origin[1], 41))
    with pytest.warns(CroppedCubeWarning, match="aoi="):
        out = probability(part, STORED)
    window = STORED.window
    # where no window reaches the cut, nothing has changed
    first = tuple(0 if o == 0 else o + window for o in origin)
    inner = np.s_[:, first[0] : 33 - window, first[1] : 41 - window]
    local = np.s_[:, first[0] - origin[0] : 33 - window - origin[0], first[1] - origin[1] : 41 - window - origin[1]]
    assert out[local].size > 50
    np.testing.assert_array_equal(out[local], full[inner])


def test_without_a_recorded_origin_a_dataset_starts_at_its_own_corner() -> None:
    ds = yearly_dataset(SHAPE)
    part = ds.isel(y=slice(5, 30), x=slice(6, 40))
    for name in (schema.GRID_ORIGIN, schema.GRID_SHAPE):
        del part.spatial_ref.attrs[name]
    np.testing.assert_allclose(probability(part)[0], published(part, MODEL), atol=1e-6)


def test_the_whole_cube_does_not_warn(cube: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CroppedCubeWarning)
        cube.icemap.predict(STORED)


# --- changed cubes


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + np.float32(1),
        lambda a: a.copy(data=a.data[::-1]),
        lambda a: a.copy(data=a.values * 0.5),
        lambda a: a.where(a > -13),
        lambda a: a.roll(x=3),
        lambda a: a.isel(rtc_time=[2, 0, 1]).assign_coords(rtc_time=a.rtc_time),
    ],
)
def test_a_cube_changed_after_opening_is_not_read_from_its_store(cube: xr.Dataset, change: Any) -> None:
    before = probability(cube, STORED)
    changed = cube.assign(rtc=change(cube.rtc))
    loaded = changed.load().icemap.yearly()
    expected = probability(loaded, STORED)
    changed = cube.assign(rtc=change(cube.rtc))
    np.testing.assert_array_equal(probability(changed, STORED), expected)
    assert not np.array_equal(expected, before, equal_nan=True)


def test_a_changed_index_is_obeyed(cube: xr.Dataset) -> None:
    turned = cube.assign(rtc_index=cube.rtc_index[:, ::-1].copy(data=[[2, 2, 2]]))
    expected = probability(turned.icemap.yearly().load(), STORED)
    np.testing.assert_array_equal(probability(turned, STORED), expected)
    assert not np.array_equal(expected, probability(cube, STORED))


# --- graphs


def count(array: Any) -> int:
    (optimised,) = dask.optimize(array)
    return len(dict(optimised.__dask_graph__()))


def test_an_untouched_store_costs_at_most_1_1_tasks_per_block(
    cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockjob, "_BLOCK_TARGET", 8)
    maps = cube.icemap.predict(STORED).probability.data
    assert np.prod(maps.numblocks) == 30
    assert count(maps) <= 1.1 * 30


def test_graphs_have_the_same_names_for_the_same_and_others_for_other_inputs(path: Path) -> None:
    def name(ds: xr.Dataset | None = None, model: Any = STORED, **options: Any) -> set[str]:
        ds = open_cube(path) if ds is None else ds
        array = ds.icemap.predict(model, **options).probability.data
        return {str(key) for key in dask.core.flatten(array.__dask_keys__())}

    cube = open_cube(path)
    mask = xr.DataArray(np.ones(SHAPE, bool), dims=("y", "x"))
    aoi = (15.0, 78.0, 15.001, 78.4)
    moved = cube.assign_coords(x=cube.x + 20)
    moved.spatial_ref.attrs.pop(schema.GRID_ORIGIN)
    names = [
        name(),
        name(overlap=0.25),
        name(blend="crop"),
        name(sigma=0.4),
        name(mask=mask),
        name(mask=~mask),
        name(aoi=aoi),
        name(moved, aoi=aoi),
        name(model=replace(STORED, window=16)),
        name(cube.icemap.yearly()),
        name((cube + np.float32(0)).assign(rtc_index=cube.rtc_index, insar_index=cube.insar_index)),
    ]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not one & other
    assert name() == names[0]
    assert name(mask=mask) == names[4]
    assert name(open_cube(path).icemap.yearly()) == names[9]


# --- refusals


def without_crs(ds: xr.Dataset) -> xr.Dataset:
    return ds.drop_vars("spatial_ref").assign_coords(y=ds.y.values, x=ds.x.values)


def in_degrees(ds: xr.Dataset) -> xr.Dataset:
    size = {axis: ds.sizes[axis] for axis in ("y", "x")}
    plain = without_crs(ds).assign_coords(y=78 - 1e-4 * np.arange(size["y"]), x=15 + 1e-4 * np.arange(size["x"]))
    found: xr.Dataset = plain.odc.assign_crs("EPSG:4326")
    return found


def in_units(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(grd=ds.grd.assign_attrs(units="1"))


REFUSED: list[tuple[Any, type[IcemapError], str]] = [
    (lambda ds: ds.drop_vars("insar"), SchemaError, "'insar'.*grd"),
    (lambda ds: ds.rename(insar="insr"), SchemaError, "'insar'.*'insr'"),
    (lambda ds: ds.transpose("step", "year", "y", "x"), SchemaError, "dims.*transpose"),
    (lambda ds: ds.isel(step=0), SchemaError, "dims"),
    (lambda ds: ds.isel(step=slice(2)), ModelMismatchError, "2 steps.*needs 3"),
    (without_crs, SchemaError, "CRS.*assign"),
    (in_degrees, GridError, "geographic.*projected"),
    (in_units, SchemaError, "'1'.*'dB'.*convert"),
    (lambda ds: ds.assign(grd=ds.grd.astype("int16")), SchemaError, "int16.*float"),
    (lambda ds: ds.drop_vars("x"), SchemaError, "coordinate 'x'"),
    (lambda ds: ds.isel(y=slice(None, None, -1)), GridError, "north-up"),
    (lambda ds: ds.isel(y=slice(None, None, 2), x=slice(None, None, 2)), GridError, "resampled"),
    (lambda ds: ds.isel(x=slice(None, None, 2)), GridError, "square|resampled"),
]


@pytest.mark.parametrize(("change", "kind", "match"), REFUSED)
def test_datasets_that_do_not_fit_are_refused_in_one_line(change: Any, kind: type[IcemapError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        probability(change(yearly_dataset(SHAPE)))
    assert "\n" not in str(caught.value)


def test_a_native_cube_without_the_feature_names_what_it_has(cube: xr.Dataset) -> None:
    with pytest.raises(ModelMismatchError, match=r"grd, insar.*rtc, insar"):
        cube.icemap.predict(MODEL)
    with pytest.raises(ModelMismatchError, match=r"3 steps.*needs 15.*steps=15"):
        cube.icemap.predict(replace(STORED, steps=15))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"overlap": 1.0}, "overlap=1.0"),
        ({"overlap": -0.1}, "overlap=-0.1"),
        ({"sigma": 0}, "sigma=0"),
        ({"blend": "mean"}, "blend='mean'.*'gaussian' or 'crop'"),
        ({"edges": "valid"}, "edges='valid'"),
        ({"classes": "some"}, "classes='some'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"years": [2020, 1999]}, "1999.*2020"),
        ({"gaps": "some", "years": [2020]}, "gaps='some'"),
        ({"aoi": (0, 0, 0, 0)}, "box"),
    ],
)
def test_options_out_of_range_are_refused(cube: xr.Dataset, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        cube.icemap.predict(STORED, **options)


def test_a_model_without_a_precision_says_so() -> None:
    with pytest.raises(ModelMismatchError, match=r"bfloat16.*float32"):
        probability(yearly_dataset(SHAPE), precision="bfloat16")


def test_another_polarisation_than_the_models_warns() -> None:
    @dataclass(frozen=True)
    class Trained(FakePredictor):
        @property
        def spec(self) -> ModelSpec:
            plain = super().spec
            grd, insar = plain.features
            return replace(plain, inputs=(InputSpec("inputs", (replace(grd, polarisation="HH"), insar)),))

    ds = yearly_dataset((9, 9))
    probability(ds, Trained(8, 3))
    ds.grd.attrs["polarisation"] = "HH"
    probability(ds, Trained(8, 3))
    ds.grd.attrs["polarisation"] = "VV"
    with pytest.warns(ModelMismatchWarning, match="VV.*HH") as caught:
        probability(ds, Trained(8, 3))
    assert caught[0].filename == __file__


def test_years_are_chosen_and_kept_apart() -> None:
    ds = yearly_dataset(SHAPE, years=(2019, 2020, 2021))
    full = probability(ds)
    np.testing.assert_array_equal(probability(ds, years=[2021, 2019]), full[[2, 0]])
    for row in range(3):
        np.testing.assert_allclose(full[row], published(ds.isel(year=[row]), MODEL), atol=1e-6)
