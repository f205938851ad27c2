"""Products of processing services: names and layouts as their makers write them, values as a cube needs them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

import icemap_xr as ix
from icemap_xr.errors import InputError
from icemap_xr.stac_items import items_from_files
from icemap_xr.testing.fakes import small_grid

SHAPE = (12, 15)
GRID = small_grid(SHAPE)
POWER = np.random.default_rng(0).lognormal(-3, 1, SHAPE).astype(np.float32)
POWER[:3] = 0.0
COHERENCE = np.random.default_rng(1).uniform(0.05, 1, SHAPE).astype(np.float32)
COHERENCE[:2] = 0.0

GRANULE = "S1A_IW_GRDH_1SDV_20210405T052810_20210405T052835_037311_046570_2D0E"
INSAR = "S1AA_20240106T052810_20240118T052809_VVP012_INT80_G_ueF_96C4"
CARD = "S1A_20240101T010035__1A__20231220T010010_20231220T010035_CARD-COH12"


def write(path: Path, *bands: Any, nodata: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = SHAPE
    options = {"driver": "GTiff", "height": height, "width": width, "count": len(bands), "dtype": "float32"}
    geobox = GRID.geobox
    with rasterio.open(path, "w", crs=str(geobox.crs), transform=geobox.transform, nodata=nodata, **options) as out:
        for number, values in enumerate(bands, start=1):
            out.write(np.asarray(values, np.float32), number)
    return path


def rtc(folder: Path, code: str = "gpuned", *, start: str = "20210405T052810", granule: str | None = GRANULE) -> Path:
    """Write a product folder as HyP3 delivers it."""
    base = f"S1A_IW_{start}_DVP_RTC30_G_{code}_FD6A"
    values = {"p": POWER, "a": np.sqrt(POWER), "d": 10 * np.log10(np.where(POWER > 0, POWER, 1))}[code[1]]
    header = {"p": None, "a": None, "d": 0.0}[code[1]]
    for name in ("VV", "VH"):
        write(folder / base / f"{base}_{name}.tif", values, nodata=header)
    for name in ("dem", "inc_map", "ls_map", "area", "rgb"):
        write(folder / base / f"{base}_{name}.tif", np.ones(SHAPE))
    if granule:
        text = f"The source granule used to generate the products contained in this folder is:\n{granule}\n"
        (folder / base / f"{base}.README.md.txt").write_text(text)
    return folder


def insar(folder: Path, base: str = INSAR, text: str | None = None) -> Path:
    for name in ("corr", "unw_phase", "amp", "water_mask"):
        write(folder / base / f"{base}_{name}.tif", COHERENCE)
    told = text or (
        "Reference Granule: S1A_IW_SLC__1SDV_20240106T052810_20240106T052837_051986_064839_93A7\n"
        "Secondary Granule: S1A_IW_SLC__1SDV_20240118T052809_20240118T052837_052161_064E2A_C7D4\n"
        "Reference Pass Direction: DESCENDING\nReference Orbit Number: 51986\n"
    )
    (folder / base / f"{base}.txt").write_text(told)
    return folder


def card(folder: Path, *, count: int = 6) -> Path:
    phase = np.full(SHAPE, 2.5)
    bands = [COHERENCE / 2, POWER * 100, phase, COHERENCE, POWER * 300, phase]
    write(folder / CARD / f"{CARD}.tif", *bands[:count])
    return folder


def build(folder: Path, path: Path, **options: Any) -> xr.Dataset:
    return ix.build_cube(items_from_files(folder), GRID, path, steps=1, **options)


@pytest.mark.parametrize("code", ["gpuned", "gauned", "gduned", "spuned"])
def test_backscatter_is_converted_from_the_scale_that_the_name_tells(tmp_path: Path, code: str) -> None:
    ds = build(rtc(tmp_path / "in", code), tmp_path / "cube.zarr")
    expected = np.where(POWER > 0, 10 * np.log10(np.where(POWER > 0, POWER, 1)), np.nan)
    np.testing.assert_allclose(ds.rtc[0], expected, atol=0.003)
    assert ds.rtc.attrs["radiometry"] == {"g": "gamma0", "s": "sigma0"}[code[0]]
    assert (int(ds.rtc_absolute_orbit[0]), ds.attrs["relative_orbit"]) == (37311, (37311 - 73) % 175 + 1)
    assert ds.rtc_platform.values.tolist() == ["sentinel-1a"]


def test_layers_that_no_cube_needs_are_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        items = list(items_from_files(insar(rtc(tmp_path))))
    assert [sorted(item.assets) for item in items] == [["VH", "VV"], ["coherence"]]
    assert caplog.text == ""


def test_scales_may_differ_within_a_series_and_filters_and_radiometries_may_not(tmp_path: Path) -> None:
    later = GRANULE.replace("20210405", "20210417").replace("037311", "037486")
    both = rtc(rtc(tmp_path / "both"), "gauned", start="20210417T052810", granule=later)
    ds = build(both, tmp_path / "cube.zarr")
    np.testing.assert_allclose(ds.rtc[0], ds.rtc[1], atol=0.006)
    for code, match in (("gpufed", "speckle filter"), ("spuned", "radiometries gamma0, sigma0")):
        mixed = rtc(rtc(tmp_path / code), code, start="20210417T052810", granule=later)
        with pytest.raises(InputError, match=match):
            build(mixed, tmp_path / f"{code}.zarr")


def test_a_description_of_another_scene_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"README\.md\.txt names a scene of 2021-04-17"):
        items_from_files(rtc(tmp_path, granule=GRANULE.replace("20210405", "20210417")))


def test_without_its_description_the_orbit_of_a_product_is_unknown_and_that_is_noted(tmp_path: Path) -> None:
    from icemap_xr.cube_report import cube_info

    ds = build(rtc(tmp_path / "in", granule=None), tmp_path / "cube.zarr")
    assert ds.attrs["relative_orbit"] == -1
    (note,) = cube_info(tmp_path / "cube.zarr")["notes"]
    assert "do not say their relative orbit" in note


def test_coherence_of_a_product_has_both_dates_and_its_orbit(tmp_path: Path) -> None:
    ds = build(insar(tmp_path / "in"), tmp_path / "cube.zarr")
    np.testing.assert_allclose(ds.insar[0], np.where(COHERENCE > 0, COHERENCE, np.nan), atol=2e-5)
    assert str(ds.insar_reference_time.values[0])[:19] == "2024-01-06T05:28:10"
    assert str(ds.insar_secondary_time.values[0])[:19] == "2024-01-18T05:28:09"
    assert ds.insar_baseline_days.values.tolist() == [12.0]
    assert (ds.attrs["relative_orbit"], ds.attrs["orbit_state"]) == ((51986 - 73) % 175 + 1, "descending")


@pytest.mark.parametrize(
    ("base", "track", "state"),
    [
        ("S1_109903_IW2_20210405_20210417_VV_INT40_A1B2", 52, "descending"),
        ("S1A_064_E053_1_N27_3_E054_1_N27_8_20200604_20200616_VV_INT80_7EB5", 64, "ascending"),
        ("S1_052_000000s1n00-109903s2n03-000000s3n00_IW_20210405_20210417_VV_INT80_C3D4", 52, "ascending"),
    ],
)
def test_bursts_processed_with_isce(tmp_path: Path, base: str, track: int, state: str) -> None:
    (item,) = items_from_files(insar(tmp_path, base, "Reference Pass Direction: ASCENDING\n"))
    assert item.properties["sat:relative_orbit"] == track
    assert item.properties["insar:temporal_baseline"] == 12
    if "s1n00" in base or base.startswith("S1A"):
        assert item.properties["sat:orbit_state"] == state


@pytest.mark.parametrize(("polarisation", "share"), [("VV", 1.0), ("VH", 0.5)])
def test_the_bands_of_an_on_demand_product_are_known_by_their_order(
    tmp_path: Path, polarisation: str, share: float
) -> None:
    ds = build(card(tmp_path / "in"), tmp_path / "cube.zarr", polarisation=polarisation)
    expected = np.where(COHERENCE > 0, COHERENCE * np.float32(share), np.nan)
    np.testing.assert_allclose(ds.insar[0], expected, atol=2e-5)
    assert str(ds.insar_reference_time.values[0])[:19] == "2023-12-20T01:00:10"
    assert str(ds.insar_secondary_time.values[0])[:19] == "2024-01-01T01:00:35"
    assert ds.insar.attrs["polarisation"] == polarisation


def test_by_default_an_on_demand_product_is_read_in_vv(tmp_path: Path) -> None:
    assert build(card(tmp_path / "in"), tmp_path / "cube.zarr").insar.attrs["polarisation"] == "VV"


def test_other_numbers_of_bands_are_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 2 bands, a CARD-COH product has 6"):
        items_from_files(card(tmp_path, count=2))


def test_the_days_in_a_name_must_be_those_between_its_dates(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a pair of 6 days, and its dates lie 11 days apart"):
        items_from_files(insar(tmp_path, INSAR.replace("P012", "P006")))


def test_a_loader_that_cannot_choose_a_band_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose loader='odc'"):
        build(card(tmp_path / "in"), tmp_path / "cube.zarr", loader="stackstac")


def test_rasters_of_several_bands_need_a_profile_that_names_one(tmp_path: Path) -> None:
    (item,) = items_from_files(card(tmp_path))
    item.assets["coherence"] = item.assets.pop("product")
    item.set_collection(None)
    item.collection_id = "coherence"
    items = items_from_files(tmp_path).clone()
    items.items[:] = [item]
    with pytest.raises(InputError, match="has 6 bands, and nothing says which one holds insar VV"):
        ix.build_cube(items, GRID, tmp_path / "cube.zarr", steps=1, polarisation="VV")


def test_bilinear_interpolation_mixes_no_undeclared_nodata_into_values(tmp_path: Path) -> None:
    """Shifted by half a pixel, next to the image's edge: the zeros outside must not darken it."""
    shifted = ix.RegionGrid(GRID.geobox.translate_pix(0, 0.5))
    ds = ix.build_cube(items_from_files(insar(tmp_path / "in")), shifted, tmp_path / "cube.zarr", steps=1)
    found = ds.insar[0].values
    inside = (COHERENCE[2:-1] + COHERENCE[3:]) / 2
    np.testing.assert_allclose(found[2:-1], inside, atol=1e-3)
    assert np.nanmin(found) >= 0.05 - 1e-4
