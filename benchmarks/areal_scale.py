"""How much planar areas in a UTM zone differ from areas on the ellipsoid, over a region or over its glaciers.

    python benchmarks/areal_scale.py --bounds 10.4 76.4 33.6 80.9 --crs EPSG:32633
    python benchmarks/areal_scale.py --glaciers rgi.dbf --crs EPSG:32633

With `--glaciers`, an attribute table of RGI 7, the scale at each glacier's centre is weighted with its area.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyogrio
import pyproj

from icemap_xr.arealscale import areal_scale


def main() -> None:
    """Print the scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bounds", type=float, nargs=4, default=[10.4, 76.4, 33.6, 80.9], help="W S E N, degrees")
    parser.add_argument("--crs", default="EPSG:32633")
    parser.add_argument("--glaciers", help="attribute table of RGI 7 with cenlon, cenlat, area_km2")
    arguments = parser.parse_args()
    if arguments.glaciers:
        table = pyogrio.read_dataframe(arguments.glaciers, read_geometry=False)
        lon, lat, weight = (table[name].to_numpy(float) for name in ("cenlon", "cenlat", "area_km2"))
    else:
        west, south, east, north = arguments.bounds
        lon, lat = (one.ravel() for one in np.meshgrid(np.linspace(west, east, 200), np.linspace(south, north, 200)))
        weight = np.cos(np.radians(lat))
    x, y = pyproj.Transformer.from_crs("EPSG:4326", arguments.crs, always_xy=True).transform(lon, lat)
    scale = areal_scale(arguments.crs, np.asarray(x), np.asarray(y))
    # planar over true area of the whole; areas of RGI 7 are true ones (equal-area projection)
    mean = float(np.average(scale, weights=weight))
    total = f", {weight.sum():.1f} km2" if arguments.glaciers else ""
    print(f"{arguments.crs}, {len(scale)} points{total}: planar / true area")
    print(f"mean {mean:.5f} ({mean - 1:+.3%}), from {scale.min():.5f} to {scale.max():.5f}")


if __name__ == "__main__":
    main()
