"""Ice divides against the Randolph Glacier Inventory: a complex of 23 glaciers in the Oetztal Alps.

    python benchmarks/divides.py FOLDER --picture docs/images/divides.png

FOLDER holds what OGGM publishes as sample data: `srtm_oetztal.tif` (SRTM, 3 arc seconds), `rgi7c_hef.shp` (the RGI 7
complex), `rgi7g_hef_complex.shp` (its glaciers) and `rgi_oetztal.shp` (glaciers of RGI 5 near it). Printed are

- glaciers found (IoU above 0.5) and the IoU of the best match of each RGI 7 glacier, weighted by its area, for divides
  drawn by Kienholz's method with the published parameters;
- the same by id for RGI 7 copied onto the complex after a retreat of 60 m, against RGI 7 clipped;
- the same as for the first for RGI 5 copied onto the RGI 7 complex, and how much of it RGI 5 covers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

import icemap_xr as ix
from icemap_xr.testing.rasters import read_raster

CRS = "EPSG:32632"
#: what the complex loses along its rim in the retreat, m
RETREAT = 60.0


def read(path: Path) -> gpd.GeoDataFrame:
    """Return glaciers in metres, without heights, valid."""
    frame = gpd.read_file(path).to_crs(CRS)
    return frame.assign(geometry=shapely.make_valid(shapely.force_2d(frame.geometry.values)))


def best(found: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> np.ndarray:
    """Return the largest IoU that any glacier found has with each true one."""
    shapes, out = found.geometry.to_numpy(), []
    for one in truth.geometry:
        common = shapely.area(shapely.intersection(shapes, one))
        out.append((common / (shapely.area(shapes) + one.area - common)).max())
    return np.array(out)


def same_id(found: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> np.ndarray:
    """Return the IoU of each true glacier with the one found under its id."""
    by_id = found.set_index("glacier_id").geometry
    pairs = [
        (by_id.get(name, shapely.Polygon()), one) for name, one in zip(truth["rgi_id"], truth.geometry, strict=True)
    ]
    return np.array([one.intersection(other).area / one.union(other).area for one, other in pairs])


def show(
    name: str, cell: float, found: gpd.GeoDataFrame, iou: np.ndarray, truth: gpd.GeoDataFrame, took: float
) -> None:
    """Print one row."""
    mean = np.average(iou, weights=truth.area)
    print(
        f"| {name} | {cell:g} | {len(found)} | {(iou > 0.5).sum()} of {len(truth)} | {mean:.3f} | {took:.0f} |",
        flush=True,
    )


def timed(call: Callable[[], gpd.GeoDataFrame]) -> tuple[gpd.GeoDataFrame, float]:
    """Return a result and the seconds it took."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def picture(found: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, dem: xr.DataArray, path: Path) -> None:
    """Draw divides of the RGI and found ones over a shaded DEM."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LightSource
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    ground = dem.astype("float32").odc.reproject(CRS, resolution=60, resampling="cubic", dst_nodata=np.nan)
    shade = LightSource(315, 45).hillshade(ground.values, vert_exag=1, dx=60, dy=-60)
    west, south, east, north = truth.total_bounds
    half = 30.0
    extent = [
        float(ground.x[0]) - half,
        float(ground.x[-1]) + half,
        float(ground.y[-1]) - half,
        float(ground.y[0]) + half,
    ]
    figure, axes = plt.subplots(1, 2, figsize=(11, 6), sharex=True, sharey=True, layout="constrained")
    truth = truth.iloc[truth.geometry.representative_point().y.argsort().to_numpy()].reset_index(drop=True)
    colours = [plt.get_cmap("tab20").colors[i % 20] for i in range(len(truth))]
    # a glacier found has the colour of that of the RGI with which it has most ground in common
    common = shapely.area(shapely.intersection(found.geometry.to_numpy()[:, None], truth.geometry.to_numpy()[None]))
    for ax, frame, own, title in zip(
        axes,
        (truth, found),
        (colours, [colours[i] for i in common.argmax(axis=1)]),
        (f"RGI 7: {len(truth)} glaciers", f"Kienholz's method: {len(found)} glaciers"),
        strict=True,
    ):
        ax.imshow(shade, cmap="gray", extent=extent, vmin=-0.2, vmax=1)
        frame.plot(ax=ax, color=own, alpha=0.65, edgecolor="black", linewidth=0.7)
        ax.set_title(title, fontsize=11)
        ax.set(
            xlim=(west - 500, east + 500), ylim=(south - 500, north + 500), xticks=[], yticks=[], xlabel="", ylabel=""
        )
    bar = AnchoredSizeBar(
        axes[1].transData, 5000, f"5 km   ({CRS})", "lower right", label_top=True, pad=0.5, sep=4, size_vertical=100
    )
    axes[1].add_artist(bar)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pixel-size", type=float, nargs="+", default=[30.0, 20.0, 10.0], help="m")
    parser.add_argument("--picture", type=Path, help="PNG of the divides on the first pixel size")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    dem = read_raster(folder / "srtm_oetztal.tif")
    complex_, seven = read(folder / "rgi7c_hef.shp"), read(folder / "rgi7g_hef_complex.shp")
    five = read(folder / "rgi_oetztal.shp")
    small = gpd.GeoDataFrame(geometry=complex_.buffer(-RETREAT))
    clipped = seven.assign(geometry=seven.intersection(small.union_all()))
    clipped = clipped[~clipped.is_empty]
    covered = five.union_all().intersection(complex_.union_all()).area / complex_.area.sum()

    print("| divides | grid, m | glaciers | found | weighted IoU | s |\n|---|---|---|---|---|---|")
    for cell in arguments.pixel_size:
        options = ix.DivideOptions(pixel_size=cell)
        found, took = timed(lambda options=options: ix.divide(complex_, dem, options=options))
        show("Kienholz", cell, found, best(found, seven), seven, took)
        if arguments.picture and cell == arguments.pixel_size[0]:
            picture(found, seven, dem, arguments.picture)
        copied, took = timed(lambda options=options: ix.divide(small, dem, earlier=seven, options=options))
        show("RGI 7 after a retreat, by id", cell, copied, same_id(copied, clipped), clipped, took)
        older, took = timed(lambda options=options: ix.divide(complex_, dem, earlier=five, options=options))
        show("RGI 5", cell, older, best(older, seven), seven, took)
    near = five.intersects(complex_.union_all()).sum()
    print(f"\nthe RGI 5 file covers {covered:.1%} of the complex with {near} glaciers")


if __name__ == "__main__":
    main()
