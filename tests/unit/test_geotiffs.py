"""GeoTIFFs as a model view: grids, nodata of every kind, laziness, and one-line errors."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from icemap_xr import schema
from icemap_xr.errors import GridError, InputError, ReadError, SchemaError
from icemap_xr.geotiffs import cube_from_geotiffs
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import write_raster

SHAPE = (70, 90)
Write = Callable[..., Path]


def values(shape: tuple[int, int] = SHAPE, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(-12, 3, shape).astype(np.float32)


def coherence(shape: tuple[int, int] = SHAPE, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.fixture
def grd(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "grd_20200105.tif", values())


def written(path: Path, raw: NDArray[Any], **profile: Any) -> Path:
    """Write an array as it is, on `small_grid` unless told otherwise."""
    grid = small_grid((raw.shape[0], raw.shape[1]))
    options = {
        "driver": "GTiff",
        "height": raw.shape[0],
        "width": raw.shape[1],
        "count": 1,
        "dtype": raw.dtype.name,
        "crs": grid.crs,
        "transform": grid.geobox.transform,
    }
    tags = profile.pop("scaling", None)
    mask = profile.pop("mask", None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **options | profile) as out:
        out.write(raw, 1)
        if tags:
            out.scales, out.offsets = (tags[0],), (tags[1],)
        if mask is not None:
            out.write_mask(mask)
    return path


def other_grid(crs: str, resolution: float, *, shape: tuple[int, int] = SHAPE, margin: float = 300) -> RegionGrid:
    """A grid in another CRS that covers `small_grid(shape)`."""
    box = small_grid(shape).geobox.boundingbox
    left, bottom, right, top = transform_bounds("EPSG:32633", crs, *box.bbox, densify_pts=21)
    rows, columns = (int((b - a + 2 * margin) / resolution) for a, b in ((bottom, top), (left, right)))
    transform = Affine(resolution, 0, left - margin, 0, -resolution, top + margin)
    return RegionGrid(GeoBox((rows, columns), transform, crs))


def warped(source: NDArray[np.float32], grid: RegionGrid, target: RegionGrid, **options: Any) -> NDArray[np.float32]:
    """What plain rasterio makes of the whole scene."""
    out = np.full(target.shape, np.nan, np.float32)
    reproject(
        source,
        out,
        src_transform=grid.geobox.transform,
        src_crs=grid.crs,
        src_nodata=np.nan,
        dst_transform=target.geobox.transform,
        dst_crs=target.crs,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
        **options,
    )
    return out


def test_model_view_has_names_units_grid_and_values(tmp_path: Path) -> None:
    files: dict[str, list[Path]] = {"grd": [], "insar": []}
    for step in range(3):
        files["grd"].append(write_raster(tmp_path / f"S1A_2020010{step + 1}T0733.tif", values(seed=step)))
        name = f"2020010{step + 1}_20200113_cc.tif"
        files["insar"].append(write_raster(tmp_path / name, coherence(seed=step)))
    ds = cube_from_geotiffs(files, chunk=32)
    schema.validate_yearly(ds, ("grd", "insar"))
    assert RegionGrid.from_dataset(ds).geobox == small_grid(SHAPE).geobox
    assert not RegionGrid.from_dataset(ds).is_cropped
    assert ds["year"].values.tolist() == [2020]
    assert ds["grd"].dims == ("year", "step", "y", "x")
    assert ds["grd"].chunks == ((1,), (1, 1, 1), (32, 32, 6), (32, 32, 26))
    assert ds["grd"].dtype == ds["insar"].dtype == np.float32
    assert (ds["grd"].attrs["units"], ds["insar"].attrs["units"]) == ("dB", "1")
    assert ds["grd"].attrs["long_name"] == schema.feature("grd").long_name
    assert ds["grd_file"].dims == ("step",)
    assert ds["grd_file"].values.tolist() == [path.name for path in files["grd"]]
    assert ds["insar_file"].values.tolist()[0] == "20200101_20200113_cc.tif"
    for step in range(3):
        np.testing.assert_array_equal(ds["grd"][0, step], values(seed=step))
        np.testing.assert_array_equal(ds["insar"][0, step], coherence(seed=step))


def test_construction_reads_headers_only(grd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    original = rasterio.io.DatasetReader.read

    class Counting(rasterio.io.DatasetReader):
        def read(self, *args: Any, **options: Any) -> Any:
            reads.append(options["window"])
            return original(self, *args, **options)

    monkeypatch.setattr("rasterio.DatasetReader", Counting)
    ds = cube_from_geotiffs({"grd": [grd, grd]}, chunk=32)
    repr(ds)
    assert not reads
    ds["grd"][0, 1, :10, 40:50].compute(scheduler="synchronous")
    assert [(window.row_off, window.col_off, window.height, window.width) for window in reads] == [(0, 32, 32, 32)]


def test_series_pickles_as_paths_and_its_name_is_deterministic(grd: Path) -> None:
    ds, again = (cube_from_geotiffs({"grd": [grd] * 15}, chunk=32) for _ in range(2))
    assert ds["grd"].data.name == again["grd"].data.name
    content = pickle.dumps(ds["grd"].data)
    assert len(content) < 30_000
    np.testing.assert_array_equal(pickle.loads(content)[0, 3].compute(scheduler="synchronous"), values())
    write_raster(grd, values(seed=9))
    assert cube_from_geotiffs({"grd": [grd] * 15}, chunk=32)["grd"].data.name != ds["grd"].data.name


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_any_selection_equals_that_of_the_whole(grd: Path, scheduler: str) -> None:
    array = cube_from_geotiffs({"grd": [grd, grd]}, chunk=16)["grd"].data
    whole = np.broadcast_to(values(), (1, 2, *SHAPE))
    keys: list[Any] = [
        (0, 1, slice(3, 60), slice(17, 18)),
        (slice(None), 0, slice(None, None, 3), slice(None, None, -2)),
        (0, slice(None), 5, 7),
        (slice(None), slice(1, 1), 5, slice(None)),
        (0, 0, [4, 2, 50], slice(None)),
    ]
    with dask.config.set(scheduler=scheduler):
        for key in keys:
            np.testing.assert_array_equal(array[key].compute(), whole[key])


@pytest.mark.parametrize(
    ("crs", "resolution"), [("EPSG:32633", 40.0), ("EPSG:3413", 37.0), ("EPSG:32635", 20.0), ("EPSG:4326", 0.0008)]
)
def test_coarser_grid_is_resampled_like_the_whole_scene(tmp_path: Path, grd: Path, crs: str, resolution: float) -> None:
    grid = RegionGrid(small_grid((40, 40)).geobox) if crs == "EPSG:4326" else other_grid(crs, resolution)
    raw = coherence(grid.shape, seed=3)
    raw[: grid.shape[0] // 2, : grid.shape[1] // 2] = np.nan
    if crs == "EPSG:4326":
        box = small_grid(SHAPE).geobox.boundingbox
        left, _, right, top = transform_bounds("EPSG:32633", crs, *box.bbox)
        transform = Affine((right - left) / 40, 0, left, 0, -resolution / 4, top)
        path = written(tmp_path / "cc.tif", raw, crs=crs, transform=transform, nodata=np.nan)
        expected = np.full(SHAPE, np.nan, np.float32)
        reproject(
            raw,
            expected,
            src_transform=transform,
            src_crs=crs,
            src_nodata=np.nan,
            dst_transform=small_grid(SHAPE).geobox.transform,
            dst_crs="EPSG:32633",
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
    else:
        path = write_raster(tmp_path / "cc.tif", raw, grid=grid)
        expected = warped(raw, grid, small_grid(SHAPE))
    result = cube_from_geotiffs({"grd": [grd], "insar": [path]}, chunk=32)["insar"][0, 0].values
    assert 0.02 < np.isnan(expected).mean() < 0.98
    differs = np.isnan(result) != np.isnan(expected)
    assert differs.mean() < 0.005  # the plain projection is approximate to 1/8 pixel, at edges of nodata too
    # one eighth of a pixel of white noise at the very worst; nearest neighbour would be off by up to 1
    assert np.nanmax(np.abs(result - expected)) < 0.06
    assert np.nanmean(np.abs(result - expected)) < 2e-3


def test_same_crs_is_resampled_exactly_like_the_whole_scene(tmp_path: Path, grd: Path) -> None:
    target = small_grid(SHAPE)
    for name, resolution in (("coarse", 40.0), ("odd", 17.0), ("fine", 5.0)):
        grid = other_grid("EPSG:32633", resolution, margin=205)
        raw = coherence(grid.shape, seed=4)
        raw[100:120, 100:120] = np.nan
        path = write_raster(tmp_path / f"{name}.tif", raw, grid=grid)
        ds = cube_from_geotiffs({"grd": [grd], "insar": [path]}, chunk=32)
        np.testing.assert_allclose(ds["insar"][0, 0], warped(raw, grid, target), atol=2e-6, err_msg=name)


@pytest.mark.parametrize(("crs", "resolution"), [("EPSG:32634", 10.0), ("EPSG:3413", 4.0), ("EPSG:3413", 60.0)])
def test_resampled_values_do_not_depend_on_chunks(tmp_path: Path, grd: Path, crs: str, resolution: float) -> None:
    grid = other_grid(crs, resolution)
    raw = coherence(grid.shape, seed=5)
    raw[50:90, 50:90] = np.nan
    path = write_raster(tmp_path / "cc.tif", raw, grid=grid)
    small, large = (
        cube_from_geotiffs({"grd": [grd], "insar": [path]}, chunk=chunk)["insar"].values for chunk in (13, 512)
    )
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_finer_raster_in_a_turned_crs_is_smoothed_like_the_whole_scene(tmp_path: Path) -> None:
    shape = (96, 96)
    grd = write_raster(tmp_path / "grd.tif", values(shape))
    grid = other_grid("EPSG:3413", 4.0, shape=shape)
    raw = coherence(grid.shape, seed=6)
    path = write_raster(tmp_path / "cc.tif", raw, grid=grid)
    result = cube_from_geotiffs({"grd": [grd], "insar": [path]}, chunk=32)["insar"][0, 0].values
    expected = warped(raw, grid, small_grid(shape))
    assert result.std() < 0.2  # white noise between 0 and 1 has 0.29
    assert result.std() == pytest.approx(expected.std(), rel=0.05)
    assert np.abs(result - expected).max() < 0.06


def test_same_lattice_is_read_pixel_by_pixel(tmp_path: Path, grd: Path) -> None:
    transform = small_grid(SHAPE).geobox.transform
    moved = Affine(10, 0, transform.c + 250, 0, -10, transform.f + 120)
    raw = coherence((50, 40), seed=2)
    path = written(tmp_path / "moved.tif", raw, transform=moved)
    ds = cube_from_geotiffs({"grd": [grd], "insar": [path]}, chunk=32)
    expected = np.full(SHAPE, np.nan, np.float32)
    expected[0:38, 25:65] = raw[12:]
    np.testing.assert_array_equal(ds["insar"][0, 0], expected)


def test_reference_gives_the_grid(tmp_path: Path, grd: Path) -> None:
    transform = small_grid(SHAPE).geobox.transform
    reference = written(tmp_path / "dem.tif", np.zeros((20, 30), np.int16), transform=transform)
    ds = cube_from_geotiffs({"grd": [grd]}, reference=reference)
    assert RegionGrid.from_dataset(ds).geobox == small_grid((20, 30)).geobox
    np.testing.assert_array_equal(ds["grd"][0, 0], values()[:20, :30])


@pytest.mark.parametrize(
    "fill", [np.nan, np.inf, -np.inf, -9999, -32768, -3.4028234663852886e38, 1e20, -1000, 9999, -999, -500, -200]
)
@pytest.mark.parametrize("feature", ["grd", "insar"])
def test_undeclared_fill_is_nodata_and_never_bleeds(tmp_path: Path, fill: float, feature: str) -> None:
    raw = values() if feature == "grd" else coherence()
    hole = np.zeros(SHAPE, bool)
    hole[20:30, 40:60] = True
    raw[hole] = fill
    path = written(tmp_path / "fill.tif", raw)
    np.testing.assert_array_equal(cube_from_geotiffs({feature: [path]})[feature][0, 0], np.where(hole, np.nan, raw))
    reference = write_raster(tmp_path / "ref.tif", values((30, 40)), grid=other_grid("EPSG:32633", 23.0, margin=0))
    resampled = cube_from_geotiffs({feature: [path]}, reference=reference)[feature].values
    assert np.isnan(resampled).any()
    low, high = np.min(raw[~hole]), np.max(raw[~hole])
    assert np.nanmin(resampled) >= low
    assert np.nanmax(resampled) <= high


def test_declared_nodata_mask_scale_and_offset(tmp_path: Path) -> None:
    raw = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE) % 50 - 30
    declared = written(tmp_path / "nodata.tif", raw, nodata=0)
    double = written(tmp_path / "double.tif", np.where(raw == 0, -1.7e308, raw.astype(np.float64)), nodata=-1.7e308)
    masked = written(tmp_path / "mask.tif", raw, mask=raw != 0)
    codes = np.where(raw == 0, -32768, (raw + 10) * 100).astype(np.int16)
    packed = written(tmp_path / "packed.tif", codes, nodata=-32768, scaling=(0.01, -10))
    ds = cube_from_geotiffs({"grd": [declared, double, masked, packed]})
    expected = np.where(raw == 0, np.nan, raw)
    for step in range(4):
        np.testing.assert_allclose(ds["grd"][0, step], expected, atol=1e-5, err_msg=str(ds["grd_file"].values[step]))


def test_negative_coherence_is_nodata_rounding_is_clipped_and_other_scales_are_refused(tmp_path: Path) -> None:
    raw = coherence()
    raw[0, :4] = -0.5, -1e-5, 1 + 1e-5, -2
    path = written(tmp_path / "cc.tif", raw)
    found = cube_from_geotiffs({"insar": [path]})["insar"][0, 0].values
    np.testing.assert_array_equal(found[0, :4], [np.nan, 0, 1, np.nan])
    percent = written(tmp_path / "percent.tif", raw * 100)
    with pytest.raises(InputError, match=r"percent\.tif has insar up to 100\.\d+, allowed is 0\.\.1"):
        cube_from_geotiffs({"insar": [percent]})["insar"].compute()


def test_backscatter_below_the_training_range_is_kept(tmp_path: Path) -> None:
    raw = values()
    raw[0, :2] = -150, 60
    path = written(tmp_path / "low.tif", raw)
    np.testing.assert_array_equal(cube_from_geotiffs({"grd": [path]})["grd"][0, 0], raw)


def test_year_is_given_or_agreed_on_by_all_names_or_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def label(*names: str, year: int | None = None) -> int:
        paths = [write_raster(tmp_path / name, values((4, 4))) for name in names]
        ds = cube_from_geotiffs({"grd": paths}, year=year)
        assert ds["year"].attrs["comment"]
        return int(ds["year"][0])

    assert label("a_20190203.tif", "b_20191130T101112_054321_20200101.tif") == 2019
    assert label("a_20190203.tif", "b.tif") == 2019
    assert label("a_20190203.tif", year=2031) == 2031
    with caplog.at_level(logging.INFO, "icemap_xr"):
        assert label("a_20190203.tif", "c_20200101.tif") == 0
        assert "2019 to 2020" in caplog.text
        assert label("first.tif", "no_20191345.tif", "long_202001011.tif") == 0
        assert "no file name holds a date" in caplog.text
    assert "order" not in caplog.text
    label("c_20200101.tif", "a_20190203.tif")
    assert "the grd files are not in the order of the dates" in caplog.text


def one_line(error: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_bad_lists_are_refused_in_one_line(grd: Path) -> None:
    with pytest.raises(InputError) as error:
        cube_from_geotiffs({"grd": [grd] * 15, "insar": [grd] * 14})
    one_line(error, "grd has 15", "insar has 14")
    with pytest.raises(InputError) as error:
        cube_from_geotiffs({"grd": []})
    one_line(error, "grd has no files")
    with pytest.raises(InputError) as error:
        cube_from_geotiffs({})
    one_line(error, "grd, rtc, insar")
    with pytest.raises(InputError) as error:
        cube_from_geotiffs({"grd": str(grd)})
    one_line(error, "give a list")
    with pytest.raises(SchemaError) as error:
        cube_from_geotiffs({"insarr": [grd]})
    one_line(error, "did you mean 'insar'?")
    with pytest.raises(InputError) as error:
        cube_from_geotiffs({"grd": [grd]}, chunk=0)
    one_line(error, "chunk=0")


def test_files_that_are_no_geocoded_rasters_are_refused(tmp_path: Path, grd: Path) -> None:
    with pytest.raises(ReadError) as error:
        cube_from_geotiffs({"grd": [tmp_path / "absent.tif"]})
    one_line(error, "absent.tif", "cannot be read as a raster")
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    with pytest.raises(ReadError) as error:
        cube_from_geotiffs({"grd": [grd], "insar": [text]})
    one_line(error, "text.tif")
    bare = written(tmp_path / "bare.tif", values(), crs=None)
    with pytest.raises(InputError, match=r"bare\.tif has no CRS"):
        cube_from_geotiffs({"grd": [bare]})
    corners = [GroundControlPoint(r, c, 15 + c / 100, 78 - r / 100) for r in (0, 70) for c in (0, 90)]
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        raw = written(tmp_path / "raw.tif", values(), crs=None, transform=None)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(raw, "r+") as out:
        out.gcps = (corners, rasterio.crs.CRS.from_epsg(4326))
    with pytest.raises(InputError, match=r"raw\.tif has only ground control points: geocode it"):
        cube_from_geotiffs({"grd": [grd, raw]})
    phase = written(tmp_path / "phase.tif", values().astype(np.complex64))
    with pytest.raises(InputError, match=r"phase\.tif is complex"):
        cube_from_geotiffs({"grd": [phase]})


def test_unusable_grids_are_refused_with_the_file_name(tmp_path: Path, grd: Path) -> None:
    geographic = written(
        tmp_path / "lonlat.tif", values(), crs="EPSG:4326", transform=Affine(1e-3, 0, 15, 0, -1e-3, 78)
    )
    with pytest.raises(GridError, match=r"lonlat\.tif cannot be the reference grid: EPSG:4326 is geographic"):
        cube_from_geotiffs({"grd": [grd]}, reference=geographic)
    turned = written(
        tmp_path / "turned.tif", values(), transform=Affine.translation(5e5, 8.7e6) @ Affine(8, 6, 0, 6, -8, 0)
    )
    with pytest.raises(GridError, match=r"turned\.tif .* not north-up"):
        cube_from_geotiffs({"grd": [turned]})
    # a turned raster is no grid, but can be resampled to one
    on_grid = cube_from_geotiffs({"grd": [grd], "rtc": [turned]}, chunk=32)["rtc"][0, 0].values
    assert np.isfinite(on_grid).any()


def test_rasters_beside_the_grid_are_refused(tmp_path: Path, grd: Path) -> None:
    for name, options in {
        "far.tif": {"transform": Affine(10, 0, 600_000, 0, -10, 8_700_000)},
        "zone.tif": {"crs": "EPSG:32735"},
        "touching.tif": {"transform": Affine(10, 0, 500_900, 0, -10, 8_700_000)},
    }.items():
        path = written(tmp_path / name, coherence(), **options)
        with pytest.raises(InputError) as error:
            cube_from_geotiffs({"grd": [grd], "insar": [path]})
        one_line(error, name, "does not overlap the grid")


def test_a_file_that_goes_away_is_an_error_that_can_travel(grd: Path) -> None:
    ds = cube_from_geotiffs({"grd": [grd]})
    grd.unlink()
    with pytest.raises(ReadError, match="could not be read") as error:
        ds["grd"].compute(scheduler="synchronous")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_a_truncated_file_is_an_error_and_not_nodata(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "cut.tif", values((300, 300)))
    path.write_bytes(path.read_bytes()[:-100_000])
    ds = cube_from_geotiffs({"grd": [path]})
    with pytest.raises(ReadError, match=r"cut\.tif could not be read"):
        ds["grd"].compute(scheduler="synchronous")
