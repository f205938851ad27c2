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
from icemap_xr import outlines as _outlines
from icemap_xr import predict as _predict
from icemap_xr import store as _store
from icemap_xr import temporal as _temporal
from icemap_xr import yearindex as _yearindex
from icemap_xr.kernels.windows import Blend
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
        overlap: float = 0.5,
        blend: Blend = "gaussian",
        sigma: float = 0.5,
        edges: str = "published",
        aoi: Any = None,
        mask: xr.DataArray | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
        classes: Literal["glacier", "all"] = "glacier",
        years: Sequence[int] | None = None,
        gaps: Gaps = "error",
    ) -> xr.Dataset:
        """Map glacier probability; see `icemap_xr.predict.predict`."""
        options = {"overlap": overlap, "blend": blend, "sigma": sigma, "edges": edges, "aoi": aoi, "mask": mask}
        more = {"batch_size": batch_size, "precision": precision, "classes": classes, "years": years, "gaps": gaps}
        return _predict.predict(self._ds, model, **options, **more)  # type: ignore[arg-type]

    def filter_years(self, *, window: int = 3, method: str = "median") -> xr.Dataset:
        """Filter yearly maps in time; see `icemap_xr.temporal.filter_years`."""
        return _temporal.filter_years(self._ds, window=window, method=method)

    def calibrate(self, calibrator: Calibrator | Mapping[str, Any] | StrPath) -> xr.Dataset:
        """Add calibrated probability; see `icemap_xr.calibrate.calibrate`."""
        return _calibrate.calibrate(self._ds, calibrator)

    def area(
        self, *, by: gpd.GeoDataFrame | None = None, method: Method = "soft", threshold: float = 0.5
    ) -> xr.Dataset:
        """Sum to areas in km2; see `icemap_xr.area.area`."""
        return _area.area(self._ds, by=by, method=method, threshold=threshold)

    def bootstrap_area(
        self,
        *,
        block: str | float = "3.2km",
        n: int = 10_000,
        seed: int = 42,
        kind: Literal["sampling", "mapping"] = "sampling",
        estimator: Literal["ratio", "sum"] = "ratio",
        method: Method = "soft",
        threshold: float = 0.5,
        level: float = 0.95,
        block_errors: Any = None,
    ) -> xr.Dataset:
        """Sum to areas with intervals; see `icemap_xr.bootstrap.bootstrap_area`."""
        draws = {"block": block, "n": n, "seed": seed, "kind": kind, "estimator": estimator, "level": level}
        return _bootstrap.bootstrap_area(
            self._ds,
            method=method,
            threshold=threshold,
            block_errors=block_errors,
            **draws,  # type: ignore[arg-type]
        )

    def outlines(
        self, *, threshold: float = 0.5, connectivity: int = 4, min_area_km2: float = 0.0, variable: str | None = None
    ) -> gpd.GeoDataFrame:
        """Draw outlines; see `icemap_xr.outlines.outlines`."""
        return _outlines.outlines(
            self._ds, threshold=threshold, connectivity=connectivity, min_area_km2=min_area_km2, variable=variable
        )

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
    ) -> Path:
        """Write the regional archive; see `icemap_xr.archive.archive`."""
        return _archive.archive(
            self._ds, path, areas=areas, outlines=outlines, calibrator=calibrator, lineage=lineage, region=region
        )

    def plot(self, *, year: int | None = None, outlines: gpd.GeoDataFrame | None = None) -> Axes:
        """Draw a map; see `icemap_xr.plot.plot`."""
        from icemap_xr import plot as _plot  # Matplotlib is slow to import

        return _plot.plot(self._ds, year=year, outlines=outlines)
