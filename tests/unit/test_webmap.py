"""The interactive map: what lies where on it, which year is shown, and what it cannot show."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.features import rasterize

from icemap_xr import webmap
from icemap_xr.errors import GridError, InputError, MissingExtraError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines
from icemap_xr.webmap import explore

folium = pytest.importorskip("folium")


def dataset(crs="EPSG:32633", corner=(500_000, 8_700_000), shape=(300, 400), side=10.0):
    grid = RegionGrid(GeoBox(shape, Affine(side, 0, corner[0], 0, -side, corner[1]), crs))
    y, x = np.mgrid[: shape[0], : shape[1]]
    one = (np.hypot(y - shape[0] / 3, x - shape[1] / 4) < shape[0] / 5).astype(np.float32)
    values = np.stack([one, np.roll(one, shape[1] // 3, axis=1)])
    values[:, -20:] = np.nan
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2020, 2021], **grid.coords()})


def layers(page, kind):
    return [
        one
        for group in page._children.values()
        for one in getattr(group, "_children", {}).values()
        if type(one) is kind
    ]


def test_years_are_a_choice_and_the_last_is_shown():
    ds = dataset()
    page = explore(ds, outlines=outlines(ds))
    groups = {one.layer_name: one.show for one in page._children.values() if isinstance(one, folium.FeatureGroup)}
    assert groups == {"2020": False, "2021": True}
    html = page.get_root().render()
    assert "groupedLayers" in html
    assert "area_km2" in html
    assert "probability of glacier" in html
    page = explore(ds, years=[2020], tiles=None)
    assert [one.layer_name for one in page._children.values() if isinstance(one, folium.FeatureGroup)] == ["2020"]


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3413"])
def test_picture_and_outlines_lie_on_the_same_ground(crs):
    corner = (500_000, 8_700_000) if crs == "EPSG:32633" else (1_100_000, -300_000)
    ds = dataset(crs, corner)
    shapes = outlines(ds)
    page = explore(ds, outlines=shapes, tiles=None)
    box = webmap._web_box(RegionGrid.from_dataset(ds))
    (south, west), (north, east) = webmap._bounds(box)
    lon, lat = Transformer.from_crs(ds.odc.crs, "EPSG:4326", always_xy=True).transform(
        *np.meshgrid(ds.x.values, ds.y.values)
    )
    assert west <= lon.min() < lon.max() <= east
    assert south <= lat.min() < lat.max() <= north
    picture = webmap._picture(ds.probability[0], box)
    lines = layers(page, folium.GeoJson)[0].data["features"]
    to_web = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    rings = [
        {
            "type": "Polygon",
            "coordinates": [np.column_stack(to_web.transform(*np.array(ring).T)).tolist() for ring in one],
        }
        for one in (feature["geometry"]["coordinates"] for feature in lines)
    ]
    drawn = rasterize(rings, box.shape, transform=box.transform).astype(bool)
    yellow = picture[..., 0] > 200
    assert drawn.sum() > 1000
    assert (drawn ^ yellow).sum() < 0.03 * drawn.sum()


def test_unobserved_ground_is_transparent_and_large_maps_are_thinned():
    ds = dataset(shape=(2300, 1200)).chunk(y=512, x=512)
    box = webmap._web_box(RegionGrid.from_dataset(ds))
    assert max(box.shape) <= 1001
    picture = webmap._picture(ds.probability[0], box)
    assert picture.shape == (*box.shape, 4)
    assert set(np.unique(picture[..., 3])) == {0, 255}
    assert (picture[-5:, :, 3] == 0).all()


def test_outlines_are_told_with_few_corners():
    ds = dataset(shape=(1500, 1500))
    shapes = outlines(ds)
    page = explore(ds, outlines=shapes, tiles=None)
    one = layers(page, folium.GeoJson)[0].data["features"][0]
    assert one["properties"]["area_km2"] == pytest.approx(shapes["area_km2"][0], abs=1e-4)
    assert one["properties"]["year"] == 2020
    assert len(one["geometry"]["coordinates"][0]) < 0.6 * len(shapes.geometry[0].exterior.coords)
    assert len(json.dumps(one)) < 100_000
    empty = explore(ds * 0, outlines=outlines(ds * 0), tiles=None)
    assert not layers(empty, folium.GeoJson)


def test_without_folium_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "folium", None)
    with pytest.raises(MissingExtraError, match=re.escape("icemap-xr[map]")):
        explore(dataset())


def test_what_a_web_map_cannot_show_is_refused():
    with pytest.raises(GridError, match="antimeridian"):
        explore(dataset("EPSG:32660", (550_000, 7_700_000), (30, 40), 5000.0))
    with pytest.raises(GridError, match="85 degrees"):
        explore(dataset("EPSG:3413", (-20_000, 20_000), (40, 40), 1000.0))
    ds = dataset()
    with pytest.raises(InputError, match="2019"):
        explore(ds, years=[2019])
    with pytest.raises(InputError, match="no year"):
        explore(ds, years=[])
    with pytest.raises(InputError, match="opacity"):
        explore(ds, opacity=2)
    with pytest.raises(InputError, match="CRS"):
        explore(ds, outlines=outlines(ds).set_crs(None, allow_override=True))
    with pytest.raises(SchemaError, match="calibrated"):
        explore(ds, variable="calibrated")
