"""Rates between historic inventories whose glaciers were mapped in different years, and how far today's exceed them.

The published re-evaluation: an inventory has a mean year that is itself uncertain, and parts of it are older or younger
than that year. Both go into draws of the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from icemap_xr.errors import InputError
from icemap_xr.kernels.compositions import Composition, composition, corrections, draw_counts
from icemap_xr.kernels.draws import BOUNDS, percentile_interval
from icemap_xr.options import check_count, check_level, check_seed, made_by

#: relative standard deviation of an inventory's area: 500 of 33775 km2 at 1.96 sigma (Nuth and others 2013)
AREA_SIGMA = 500 / 33775 / 1.96


@dataclass(frozen=True)
class Inventory:
    """One side of a comparison.

    Parameters
    ----------
    composition
        Years, shares and area; see `composition`.
    draws
        Draws of its area in km2, taken at random; None for the area of the composition with a relative error.
    sigma
        Relative standard deviation of the area, where there are no draws.
    """

    composition: Composition
    draws: NDArray[np.float64] | None = None
    sigma: float = AREA_SIGMA

    def __post_init__(self) -> None:
        """Refuse what areas cannot be drawn from."""
        if self.draws is not None:
            kept = np.asarray(self.draws, np.float64).ravel()
            if not kept.size or not np.isfinite(kept).all() or not (kept > 0).all():
                raise InputError("the draws of an inventory must be areas > 0 km2, at least one, without NaN")
            object.__setattr__(self, "draws", kept)
        if not (np.isfinite(self.sigma) and 0 <= self.sigma < 1):
            raise InputError(
                f"sigma {self.sigma!r} is not allowed: give a relative standard deviation, for example 0.0076"
            )

    @classmethod
    def of_glaciers(cls, years: ArrayLike, areas: ArrayLike, *, sigma: float = AREA_SIGMA) -> Inventory:
        """Return the inventory of glaciers with their years and areas (km2)."""
        return cls(composition(years, areas), None, sigma)

    @classmethod
    def of_year(cls, year: float, draws: ArrayLike, *, mean: float | None = None) -> Inventory:
        """Return a map of one year with its bootstrap draws, moved to have the mean `mean` (km2) where given."""
        areas = np.asarray(draws, np.float64).ravel()
        if isinstance(year, bool) or not isinstance(year, int | float | np.number) or not np.isfinite(year):
            raise InputError(f"year {year!r} is not allowed: give a calendar year as a number, for example 2016")
        if not areas.size:
            raise InputError("a map of one year needs draws of its area: give those of bootstrap_area")
        centre = float(areas.mean())
        moved = areas if mean is None else areas - centre + mean
        return cls(Composition(np.array([float(year)]), np.ones(1), centre if mean is None else mean), moved)


def resample_rate(
    first: Inventory, second: Inventory, *, n: int = 100_000, seed: int = 42, level: float = 0.95
) -> xr.Dataset:
    """Draw the rate of change of area between two inventories.

    Each draw takes about as many years as an inventory effectively has, with the shares of its area as probabilities;
    their mean is its date. A first stage gives the relative rate. The second stage moves the parts of an inventory that
    are not of its mean year by rates of that size, as published: ``area *= 1 + correction``.

    Parameters
    ----------
    first, second
        The earlier and the later inventory, of the same glaciers.
    n
        Draws.
    seed
        Seed.
    level
        Share of the draws between the interval's bounds.

    Returns
    -------
    xarray.Dataset
        `draws (draw)` and `interval (bound)`, km2 per year; `rate_km2_per_year`, their mean, and `std_km2_per_year`;
        `relative_rate` (mean of rate over first area, per year). Attributes name both mean years and effective numbers
        of years, and the mean rate of the first stage.

    Raises
    ------
    InputError
        A wrong option, or inventories whose drawn dates are not in order.

    Notes
    -----
    Section 8 of the published method; random numbers are NumPy's generator instead of its legacy functions, so single
    draws differ and distributions do not.
    """
    check_count(n)
    check_level(level)
    check_seed(seed)
    streams = np.random.SeedSequence(seed).spawn(2)
    stage = _stage(first, second, n, np.random.default_rng(streams[0]), 0.0)
    sigma = abs(float(np.mean(stage[1])))
    rates, relative = _stage(first, second, n, np.random.default_rng(streams[1]), sigma)
    attrs: dict[str, Any] = {"units": "km2 year-1", "level": level, "seed": seed}
    for name, one in (("first", first), ("second", second)):
        attrs[f"{name}_mean_year"] = one.composition.mean_year
        attrs[f"{name}_effective_years"] = one.composition.effective_years
        attrs[f"{name}_area_km2"] = one.composition.area
    attrs["first_stage_rate_km2_per_year"] = float(np.mean(stage[0]))
    return xr.Dataset(
        {
            "rate_km2_per_year": ((), float(rates.mean()), attrs),
            "std_km2_per_year": ((), float(rates.std()), attrs),
            "relative_rate": ((), float(relative.mean()), {"units": "year-1"}),
            "interval": (("bound",), percentile_interval(rates, level), attrs),
            "draws": (("draw",), rates, attrs),
        },
        coords={"bound": BOUNDS, "draw": np.arange(n)},
        attrs=made_by() | attrs,
    )


def _stage(
    first: Inventory, second: Inventory, n: int, rng: np.random.Generator, sigma: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return draws of the rate, km2 per year, and of the rate over the first area, per year."""
    date, area = zip(*(_drawn(one, n, rng, sigma) for one in (first, second)), strict=True)
    apart = date[1] - date[0]
    if not (apart > 0).all():
        raise InputError(
            f"the inventories overlap in time ({first.composition.mean_year:.1f} and "
            f"{second.composition.mean_year:.1f} on average): a rate needs the first one to be older in every draw"
        )
    rate = (area[1] - area[0]) / apart
    return rate, rate / area[0]


def _drawn(
    one: Inventory, n: int, rng: np.random.Generator, sigma: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return draws of an inventory's date and area."""
    counts, mean = draw_counts(one.composition, n, rng)
    assumed = one.composition.area * rng.normal(1, one.sigma, n)
    area = assumed if one.draws is None else rng.choice(one.draws, n)
    return mean, area * (1 + corrections(one.composition, counts, mean, sigma, rng))


def acceleration(recent: xr.Dataset, historic: xr.Dataset, *, level: float = 0.95, seed: int = 42) -> xr.Dataset:
    """Return how many times faster the recent rate is than the historic one, draw by draw.

    Parameters
    ----------
    recent
        Result of `trend`, or a dataset with `draws (draw)` of rates, km2 per year.
    historic
        Result of `resample_rate`.
    level
        Share of the draws between the interval's bounds.
    seed
        Seed by which the draws of the two, which are independent, are paired.

    Returns
    -------
    xarray.Dataset
        `factor` (median), `interval (bound)` and `draws (draw)`, dimensionless. Where the historic rate may be 0, the
        ratio has no mean, and its interval is wide; `historic_sign` is the share of historic draws with their mean's
        sign.

    Raises
    ------
    InputError
        A dataset without draws.
    """
    check_level(level)
    check_seed(seed)
    draws = []
    for name, one in (("recent", recent), ("historic", historic)):
        if "draws" not in one or one["draws"].dims != ("draw",):
            raise InputError(f"{name} has no draws (draw) of a rate: give the result of trend or resample_rate")
        kept = one["draws"].values[np.isfinite(one["draws"].values)]
        if not kept.size:
            raise InputError(f"every draw of {name} is NaN: give rates of years with data")
        draws.append(kept)
    rng = np.random.default_rng(seed)
    n = max(len(one) for one in draws)
    a, b = (rng.permutation(one) if len(one) == n else rng.choice(one, n) for one in draws)
    factor = np.divide(a, b, out=np.full(n, np.nan), where=b != 0)
    sign = float(np.mean(np.sign(draws[1]) == np.sign(draws[1].mean())))
    attrs = {"units": "1", "level": level}
    return xr.Dataset(
        {
            "factor": ((), float(np.nanmedian(factor)), attrs),
            "interval": (("bound",), percentile_interval(factor, level), attrs),
            "draws": (("draw",), factor, attrs),
            "historic_sign": ((), sign, {"units": "1"}),
        },
        coords={"bound": BOUNDS, "draw": np.arange(n)},
        attrs=made_by() | attrs,
    )


def recent_rate(rate: float, spread: float, *, n: int = 100_000, seed: int = 42) -> xr.Dataset:
    """Return normal draws of a rate known by its mean and 1.96 standard deviations, km2 per year."""
    if not (np.isfinite(rate) and np.isfinite(spread) and spread >= 0):
        raise InputError(f"a rate of {rate} +- {spread} is not allowed: give numbers in km2 per year")
    check_count(n)
    check_seed(seed)
    draws = np.random.default_rng(seed).normal(rate, spread / 1.96, n)
    return xr.Dataset({"draws": ("draw", draws, {"units": "km2 year-1"})})


def select_glaciers(
    table: pd.DataFrame,
    aoi: gpd.GeoDataFrame | None = None,
    *,
    area: str = "area_km2",
    lon: str = "cenlon",
    lat: str = "cenlat",
    min_km2: float = 2.0,
) -> pd.DataFrame:
    """Return the glaciers larger than `min_km2` whose centre lies in an area of interest.

    Parameters
    ----------
    table
        One row a glacier, with the columns `area` (km2), `lon` and `lat` (degrees); the defaults are those of RGI 7.
    aoi
        Polygons with a CRS; None for everywhere.
    area, lon, lat
        Names of the columns.
    min_km2
        Glaciers of this size and smaller are left out.

    Raises
    ------
    InputError
        A column is missing, the area of interest has no CRS, or no glacier is left.
    """
    for column in (area, lon, lat):
        if column not in table:
            raise InputError(f"the table has no column {column!r}: it has {', '.join(map(str, table.columns))}")
    kept = table[area] > min_km2
    if aoi is not None:
        if aoi.crs is None:
            raise InputError("the area of interest has no CRS: set one with set_crs()")
        points = gpd.GeoSeries(gpd.points_from_xy(table[lon], table[lat]), crs="EPSG:4326").to_crs(aoi.crs)
        kept &= np.asarray(shapely.intersects(points.to_numpy(), aoi.union_all()))
    if not kept.any():
        raise InputError(f"no glacier is larger than {min_km2} km2 and inside: check the area of interest and its CRS")
    return table[kept]


def source_years(dates: pd.Series) -> NDArray[np.float64]:
    """Return the years of ISO dates as text (`src_date` of RGI 7), NaN where missing."""
    years = pd.to_numeric(dates.astype("string").str.slice(0, 4), errors="coerce")
    found: NDArray[np.float64] = years.to_numpy(np.float64, na_value=np.nan)
    # inventories write unknown years as 0, 9999 or -9999999
    return np.where((found > 1800) & (found < 2200), found, np.nan)


def impute_years(
    table: pd.DataFrame, year: str, *, numeric: tuple[str, ...], categorical: tuple[str, ...] = (), seed: int = 42
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fill missing years by those of the nearest glaciers, as published.

    Categories are one-hot encoded and numbers scaled to unit variance; the number of neighbours (1, 3, 5, 7, 9) and
    their weights (uniform, distance) are those with the smallest mean absolute error in five-fold cross-validation.

    Parameters
    ----------
    table
        One row a glacier.
    year
        Column with years, NaN where missing.
    numeric, categorical
        Columns to find neighbours by; a missing number is the column's median, a missing category one of its own.
    seed
        Seed of the folds.

    Returns
    -------
    table, report
        A copy without missing years (whole numbers), and `filled` (how many), `neighbours`, `weights` and
        `mean_absolute_error` (years, in cross-validation).

    Raises
    ------
    InputError
        A column is missing or has no number, or fewer than 15 years are known.
    """
    for column in (year, *numeric, *categorical):
        if column not in table:
            raise InputError(f"the table has no column {column!r}: it has {', '.join(map(str, table.columns))}")
    when = pd.to_numeric(table[year], errors="coerce").to_numpy(np.float64)
    known = np.isfinite(when)
    if known.sum() < 15:
        raise InputError(f"only {int(known.sum())} years are known: at least 15 are needed to fill the others")
    # here, not above: importing scikit-learn takes longer than the rest of the package
    from sklearn.compose import ColumnTransformer
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features = table[[*numeric, *categorical]].copy()
    for column in numeric:
        features[column] = pd.to_numeric(features[column], errors="coerce")
        if not features[column].notna().any():
            raise InputError(f"column {column!r} has no number: leave it out, or give one that is known")
        features[column] = features[column].fillna(features[column].median())
    for column in categorical:
        features[column] = features[column].astype("string").fillna("missing").astype(object)
    columns = ColumnTransformer(
        [
            ("numeric", StandardScaler(), list(numeric)),
            ("categorical", OneHotEncoder(handle_unknown="ignore"), list(categorical)),
        ]
    )
    search = GridSearchCV(
        Pipeline([("columns", columns), ("neighbours", KNeighborsRegressor())]),
        {"neighbours__n_neighbors": [1, 3, 5, 7, 9], "neighbours__weights": ["uniform", "distance"]},
        cv=KFold(5, shuffle=True, random_state=seed),
        scoring="neg_mean_absolute_error",
        error_score=-np.inf,
    ).fit(features[known], when[known])
    filled = when.copy()
    if not known.all():
        filled[~known] = np.rint(search.predict(features[~known]))
    report = {
        "filled": int((~known).sum()),
        "neighbours": int(search.best_params_["neighbours__n_neighbors"]),
        "weights": str(search.best_params_["neighbours__weights"]),
        "mean_absolute_error": float(-search.best_score_),
    }
    return table.assign(**{year: filled}), report
