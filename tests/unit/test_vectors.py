"""Regions in every form in which users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely

from icemap_xr.errors import InputError
from icemap_xr.vectors import as_frame, lonlat_bounds, union_in_crs

BOX = (15.0, 78.0, 16.0, 78.5)


def forms(folder: Path) -> list[Any]:
    geometry = shapely.box(*BOX)
    frame = gpd.GeoDataFrame(geometry=[geometry], crs="EPSG:4326")
    frame.to_file(folder / "region.gpkg")
    frame.to_parquet(folder / "region.parquet")
    files = [folder / "region.gpkg", str(folder / "region.gpkg"), folder / "region.parquet"]
    return [BOX, list(BOX), geometry, frame, frame.geometry, *files]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for name in ("region.parquet", "region.gpkg"):
        (tmp_path / name).write_bytes(b"PAR1 and nothing else")
        with pytest.raises(InputError, match=name):
            as_frame(tmp_path / name)


def test_all_forms_are_the_same_region(tmp_path: Path) -> None:
    for form in forms(tmp_path):
        assert lonlat_bounds(form) == pytest.approx(BOX)
        assert as_frame(form).crs == "EPSG:4326"


def test_geometries_are_joined_and_projected() -> None:
    parts = gpd.GeoSeries([shapely.box(0, 0, 10, 10), shapely.box(5, 0, 20, 10)], crs="EPSG:32633")
    assert union_in_crs(parts, "EPSG:32633").area == pytest.approx(200)


@pytest.mark.parametrize(
    ("region", "match"),
    [
        ((16, 78, 15, 79), "west < east"),
        ((15, 79, 16, 78), "south < north"),
        ((15, 78, 16, 91), "degrees"),
        ((500_000, 8_600_000, 510_000, 8_610_000), "degrees"),
        ((15, 78, 16, float("nan")), "degrees"),
        ((15, 78, 16, "north"), "not four numbers"),
        ((15, 78, 16), "tuple cannot be used"),
        (None, "NoneType cannot be used"),
        (gpd.GeoDataFrame(geometry=[], crs=4326), "empty"),
        (shapely.Polygon(), "empty"),
        (gpd.GeoSeries([shapely.box(0, 0, 1, 1)]), "no CRS"),
        ("no/such/file.gpkg", "does not exist"),
    ],
)
def test_what_is_no_region_is_refused(region: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        as_frame(region)


def test_a_file_that_is_no_vector_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "region.gpkg"
    path.write_text("nonsense")
    with pytest.raises(InputError, match=r"region\.gpkg") as caught:
        as_frame(path)
    assert "\n" not in str(caught.value)
