"""``ds.icemap``: every method is one line over the stage of the same name; see there for parameters and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import geopandas as gpd
import xarray as xr

from icemap_xr import archive as _archive
from icemap_xr import area as _area
from icemap_xr import bootstrap as _bootstrap
from icemap_xr import calibrate as _calibrate
from icemap_xr import divides as _divides
from icemap_xr import glacierareas as _glacierareas
from icemap_xr import outlines as _outlines
from icemap_xr import predict as _predict
from icemap_xr import store as _store
from icemap_xr import temporal as _temporal
from icemap_xr import variogram as _variogram
from icemap_xr import yearindex as _yearindex
from icemap_xr.arealscale import AreaKind
from icemap_xr.kernels.infer import Tta
from icemap_xr.kernels.windows import Blend, Edges
from icemap_xr.types import Calibrator, Method, Predictor, StrPath
from icemap_xr.yearindex import Gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@xr.register_dataset_accessor("icemap")
class IcemapAccessor:
    """The stages of icemap-xr on a dataset: a cube, a model view or yearly maps."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def yearly(
        self, *, features: Sequence[str] | None = None, years: Sequence[int] | None = None, gaps: Gaps = "error"
    ) -> xr.Dataset:
        """Return the model view `(year, step, y, x)`; see `icemap_xr.yearindex.yearly`."""
        return _yearindex.yearly(self._ds, features=features, years=years, gaps=gaps)

    def predict(
        self,
        model: Predictor,
        *,
        window: int | None = None,
        overlap: float = 0.5,
        blend: Blend = "gaussian",
        sigma: float = 0.5,
        edges: Edges = "published",
        tta: Tta | None = None,
        mc_dropout: int = 0,
        mc_rate: float = 0.05,
        seed: int = 0,
        aoi: Any = None,
        mask: xr.DataArray | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
        classes: Literal["glacier", "all"] = "glacier",
        years: Sequence[int] | None = None,
        gaps: Gaps = "error",
        memory_limit: str | int | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Map glacier probability; see `icemap_xr.predict.predict`."""
        options: dict[str, Any] = {
            "window": window,
            "overlap": overlap,
            "blend": blend,
            "sigma": sigma,
            "edges": edges,
            "tta": tta,
        }
        options |= {"mc_dropout": mc_dropout, "mc_rate": mc_rate, "seed": seed, "aoi": aoi, "mask": mask}
        more = {"batch_size": batch_size, "precision": precision, "classes": classes, "years": years, "gaps": gaps}
        more |= {"memory_limit": memory_limit, "dry_run": dry_run}
        return _predict.predict(self._ds, model, **options, **more)  # type: ignore[arg-type]

    def filter_years(
        self, *, window: int = 3, method: Literal["median", "majority", "hmm"] = "median", stay: float = 0.9
    ) -> xr.Dataset:
        """Filter yearly maps in time; see `icemap_xr.temporal.filter_years`."""
        return _temporal.filter_years(self._ds, window=window, method=method, stay=stay)

    def calibrate(self, calibrator: Calibrator | Mapping[str, Any] | StrPath) -> xr.Dataset:
        """Add calibrated probability; see `icemap_xr.calibrate.calibrate`."""
        return _calibrate.calibrate(self._ds, calibrator)

    def area(
        self,
        *,
        by: gpd.GeoDataFrame | Literal["elevation"] | None = None,
        method: Method = "soft",
        threshold: float = 0.5,
        area_kind: AreaKind = "planar",
        dem: xr.DataArray | None = None,
        band_m: float = 50.0,
    ) -> xr.Dataset:
        """Sum to areas in km2; see `icemap_xr.area.area`."""
        options: dict[str, Any] = {"area_kind": area_kind, "dem": dem, "band_m": band_m}
        return _area.area(self._ds, by=by, method=method, threshold=threshold, **options)

    def bootstrap_area(
        self,
        *,
        block: str | float | gpd.GeoDataFrame = "3.2km",
        n: int = 10_000,
        seed: int = 42,
        kind: Literal["sampling", "mapping"] = "sampling",
        estimator: Literal["ratio", "sum"] = "ratio",
        method: Method = "soft",
        threshold: float = 0.5,
        level: float = 0.95,
        block_errors: Any = None,
        interval: Literal["percentile", "bca"] = "percentile",
        domain: xr.DataArray | gpd.GeoDataFrame | None = None,
        area_kind: AreaKind = "planar",
    ) -> xr.Dataset:
        """Sum to areas with intervals; see `icemap_xr.bootstrap.bootstrap_area`."""
        draws: dict[str, Any] = {"block": block, "n": n, "seed": seed, "kind": kind, "estimator": estimator}
        draws |= {"level": level, "interval": interval, "domain": domain, "area_kind": area_kind}
        return _bootstrap.bootstrap_area(
            self._ds,
            method=method,
            threshold=threshold,
            block_errors=block_errors,
            **draws,
        )

    def variogram(
        self,
        *,
        year: int | None = None,
        method: Method = "soft",
        threshold: float = 0.5,
        max_lag: float | None = None,
        domain: xr.DataArray | gpd.GeoDataFrame | None = None,
    ) -> xr.Dataset:
        """Measure how far ice is correlated, and suggest a block; see `icemap_xr.variogram.variogram`."""
        options: dict[str, Any] = {"method": method, "threshold": threshold, "max_lag": max_lag, "domain": domain}
        return _variogram.variogram(self._ds, year=year, **options)

    def glacier_area(
        self,
        by: gpd.GeoDataFrame,
        *,
        edge_errors: Mapping[str, Any],
        n: int = 1000,
        seed: int = 42,
        method: Method = "soft",
        threshold: float = 0.5,
        level: float = 0.95,
        area_kind: AreaKind = "planar",
    ) -> xr.Dataset:
        """Sum to the area of each glacier with intervals; see `icemap_xr.glacierareas.glacier_area`."""
        options: dict[str, Any] = {"n": n, "seed": seed, "method": method, "threshold": threshold}
        options |= {"level": level, "area_kind": area_kind}
        return _glacierareas.glacier_area(self._ds, by, edge_errors=edge_errors, **options)

    def outlines(
        self,
        *,
        threshold: float = 0.5,
        connectivity: int = 4,
        min_area_km2: float = 0.0,
        variable: str | None = None,
        max_hole_km2: float = 0.0,
        simplify_m: float = 0.0,
        edge_errors: Mapping[str, Any] | None = None,
    ) -> gpd.GeoDataFrame:
        """Draw outlines; see `icemap_xr.outlines.outlines`."""
        options = {"threshold": threshold, "connectivity": connectivity, "min_area_km2": min_area_km2}
        more: dict[str, Any] = {"variable": variable, "max_hole_km2": max_hole_km2, "simplify_m": simplify_m}
        more |= {"edge_errors": edge_errors}
        return _outlines.outlines(self._ds, **options, **more)  # type: ignore[arg-type]

    def divide(
        self,
        dem: xr.DataArray,
        *,
        earlier: gpd.GeoDataFrame | None = None,
        id_column: str | None = None,
        options: _divides.DivideOptions | None = None,
    ) -> gpd.GeoDataFrame:
        """Divide the outlines of the maps into glaciers; see `icemap_xr.divides.divide`."""
        shapes = _outlines.outlines(self._ds)
        return _divides.divide(shapes, dem, earlier=earlier, id_column=id_column, options=options)

    def to_zarr(self, path: StrPath) -> xr.Dataset:
        """Write to a Zarr store, resumable, and return it opened; see `icemap_xr.store.save`."""
        return _store.save(self._ds, path)

    def archive(
        self,
        path: StrPath,
        *,
        areas: xr.Dataset | None = None,
        outlines: gpd.GeoDataFrame | None = None,
        calibrator: Calibrator | None = None,
        lineage: Mapping[str, Any] | None = None,
        region: str = "region",
        glaciers: gpd.GeoDataFrame | None = None,
        blocks: xr.Dataset | None = None,
    ) -> Path:
        """Write the regional archive; see `icemap_xr.archive.archive`."""
        tables = {"areas": areas, "outlines": outlines, "glaciers": glaciers, "blocks": blocks}
        record = {"calibrator": calibrator, "lineage": lineage, "region": region}
        return _archive.archive(self._ds, path, **tables, **record)  # type: ignore[arg-type]

    def plot(
        self,
        *,
        year: int | None = None,
        outlines: gpd.GeoDataFrame | None = None,
        background: xr.DataArray | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw a map; see `icemap_xr.plot.plot`."""
        from icemap_xr import plot as _plot  # Matplotlib is slow to import

        return _plot.plot(self._ds, year=year, outlines=outlines, background=background, ax=ax)
