"""The section `grd` of a run configuration, which the command line uses too."""

from typing import Any

import pytest

from icemap_xr.config import parse_config
from icemap_xr.errors import ConfigError, InputError
from icemap_xr.grd import Dem, GrdOptions
from icemap_xr.grd.section import GrdSection

RUN: dict[str, Any] = {
    "name": "run",
    "region": [15.0, 78.0, 16.0, 78.5],
    "years": [2020],
    "search": {"provider": "local"},
    "grid": {"crs": "EPSG:32633"},
    "model": {"name": "demo_grdinsar"},
}


def test_it_says_what_build_cube_takes() -> None:
    assert GrdSection().options() is None
    assert GrdSection("gcp", height=3.0, radiometry="beta0").options() == GrdOptions(
        "gcp", height=3.0, radiometry="beta0"
    )
    one = GrdSection("terrain", ("a.tif", "b.tif"), "egm2008", 31.0, "sea", "nodata", noise=False, stable="rock.gpkg")
    dem = Dem(("a.tif", "b.tif"), "egm2008", 31.0, missing="sea", voids="nodata")  # type: ignore[arg-type]
    assert one.options() == GrdOptions("terrain", dem=dem, noise=False, stable="rock.gpkg")


def test_a_run_configuration_has_it() -> None:
    assert parse_config(RUN, "x").grd.options() is None
    grd = {"geocoding": "terrain", "dem": ["a.tif"], "dem_heights": "egm2008", "geoid": 31}
    config = parse_config(RUN | {"grd": grd}, "x")
    assert config.grd.options() == GrdOptions("terrain", dem=Dem("a.tif", "egm2008", 31.0))  # type: ignore[arg-type]
    assert parse_config(config.to_dict(), "again") == config
    other = parse_config(RUN | {"grd": grd | {"geoid": 30}}, "x")
    assert len({config.digest, other.digest, parse_config(RUN, "x").digest}) == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"radiometry": "gamma0"}, "without grd.geocoding"),
        ({"dem": ("a.tif",), "dem_heights": "egm96"}, "without grd.geocoding"),
        ({"geocoding": "terrain"}, "needs dem="),
        ({"geocoding": "terrain", "dem": ("a.tif",)}, "dem_heights is missing"),
        ({"geocoding": "gcp", "geoid": 30.0}, "grd.dem is missing"),
        ({"geocoding": "ellipsoid", "dem": ("a.tif",), "dem_heights": "egm96"}, "takes no dem"),
        (
            {"geocoding": "terrain", "dem": ("a.tif",), "dem_heights": "ellipsoid", "dem_missing": "sea"},
            "the sea lies on the geoid",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        GrdSection(**given)
    with pytest.raises(ConfigError, match=told):
        parse_config(RUN | {"grd": given | {"dem": list(given.get("dem", ()))}}, "x")


def test_an_unknown_key_is_told() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'grd.geocodin'.*geocoding"):
        parse_config(RUN | {"grd": {"geocodin": "gcp"}}, "x")
