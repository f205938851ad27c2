"""Run configurations: one YAML file with a section per stage, checked against these dataclasses before work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from icemap_xr.cluster import ClusterOptions
from icemap_xr.errors import ConfigError, InputError, did_you_mean
from icemap_xr.grd.section import GrdSection
from icemap_xr.kernels.infer import Tta
from icemap_xr.kernels.windows import Blend, Edges
from icemap_xr.reading import Loader
from icemap_xr.types import Method, StrPath
from icemap_xr.yearindex import Gaps

_STRICT = ConfigDict(extra="forbid")
_NAME = re.compile(r"\w[\w.-]{0,99}")
#: names of files that every run writes
_TAKEN = ("areas", "cube", "icemap_run", "items", "overview", "probability", "summary")


@dataclass(frozen=True)
class SearchSection:
    """Where scenes come from; see `icemap_xr.search`."""

    __pydantic_config__ = _STRICT

    provider: str
    profile: str = "local"
    features: tuple[str, ...] | None = None
    orbit_state: Literal["ascending", "descending"] | None = None
    relative_orbit: int | None = None
    platforms: tuple[str, ...] | None = None


@dataclass(frozen=True)
class OrbitsSection:
    """A region wider than a swath: a cube for each relative orbit, and one map in which a pixel keeps its orbit.

    `relative` names the orbits in order of preference; `map` is a vector file with a column `relative_orbit`, or the
    `probability.zarr` of an earlier run on the same grid, whose orbits are kept: give it where years are added. What it
    leaves out, or all without it, belongs to the orbit that observed it in most years; see `icemap_xr.orbitmap`.
    """

    __pydantic_config__ = _STRICT

    relative: tuple[int, ...] = ()
    map: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no choice of orbits."""
        wrong = [track for track in self.relative if not 1 <= track <= 175]
        if wrong or len(set(self.relative)) < len(self.relative) or len(self.relative) == 1:
            raise InputError(f"orbits.relative {list(self.relative)} is not allowed: give two or more of 1 to 175")
        if self.map is not None and not self.relative:
            raise InputError("orbits.map needs orbits.relative: name the orbits that it shares out")


@dataclass(frozen=True)
class GridSection:
    """The region's grid: CRS and pixel size in metres; `bounds` in that CRS fixes the extent exactly."""

    __pydantic_config__ = _STRICT

    crs: str
    resolution: float = 10.0
    bounds: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class CubeSection:
    """See `icemap_xr.build_cube`."""

    __pydantic_config__ = _STRICT

    steps: int = 15
    tolerance_days: float | None = None
    polarisation: str | None = None
    baseline_days: float | None = None
    loader: Loader = "odc"
    resampling: str = "bilinear"
    chunk: int = 512
    on_error: Literal["raise", "hole"] = "raise"


@dataclass(frozen=True)
class ModelSection:
    """See `icemap_xr.load_model`."""

    __pydantic_config__ = _STRICT

    name: str
    weights: str | None = None
    features: tuple[str, ...] | None = None
    window: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class PredictSection:
    """See `ds.icemap.predict`; `aoi` is a vector or raster file, such as the land without the sea (`icemap_xr.ground`).

    Outside of it no window is computed, and nothing counts as unobserved: it is the domain of areas and intervals.
    """

    __pydantic_config__ = _STRICT

    aoi: str | None = None
    overlap: float = 0.5
    blend: Blend = "gaussian"
    sigma: float = 0.5
    edges: Edges = "published"
    tta: Tta | None = None
    batch_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    gaps: Gaps = "error"


@dataclass(frozen=True)
class AreaSection:
    """Areas and their intervals; see `ds.icemap.filter_years`, `ds.icemap.area` and `ds.icemap.bootstrap_area`.

    Maps are filtered over the years first (`filter`, `filter_window`, `filter_stay`), then calibrated. `calibrator` is
    a JSON file; without it the model's own calibration is used if it has one, else none. `tiles` is a vector file of
    blocks, in place of squares of side `block`; `bounds` is how an interval follows from the draws. `block_errors` is a
    JSON file of held-out errors for the mapping interval; without it they are the model's own.
    """

    __pydantic_config__ = _STRICT

    filter: Literal["none", "median", "majority", "hmm"] = "none"
    filter_window: int = 3
    filter_stay: float = 0.9
    calibrator: str | None = None
    method: Method = "soft"
    area_kind: Literal["planar", "true"] = "planar"
    block: str = "3.2km"
    tiles: str | None = None
    draws: int = 10_000
    seed: int = 42
    level: float = 0.95
    interval: Literal["sampling", "mapping"] = "sampling"
    estimator: Literal["ratio", "sum"] = "ratio"
    bounds: Literal["percentile", "bca"] = "percentile"
    block_errors: str | None = None

    def __post_init__(self) -> None:
        """Refuse what belongs to another kind of interval."""
        if self.block_errors is not None and self.interval != "mapping":
            raise InputError("area.block_errors is not used by interval 'sampling': leave it out, or give 'mapping'")
        if self.bounds == "bca" and self.interval != "sampling":
            raise InputError("area.bounds 'bca' is for interval 'sampling': give 'percentile'")


@dataclass(frozen=True)
class OutlinesSection:
    """See `ds.icemap.outlines`; `edge_errors` is a JSON file, for mapping intervals of each outline.

    Without one, the model's own are used where it brings some: of its own threshold, and without a filter over years.
    """

    __pydantic_config__ = _STRICT

    threshold: float = 0.5
    min_area_km2: float = 0.0
    max_hole_km2: float = 0.0
    simplify_m: float = 0.0
    edge_errors: str | None = None


@dataclass(frozen=True)
class GlaciersSection:
    """See `icemap_xr.divide`: with a DEM (a raster file) outlines are divided into glaciers with RGI 7 columns.

    `earlier` is a vector file of an inventory whose ids and divides are kept, `dem_source` the DEM's name.
    """

    __pydantic_config__ = _STRICT

    dem: str | None = None
    dem_source: str | None = None
    earlier: str | None = None
    pixel_size: float = 10.0


@dataclass(frozen=True)
class RunConfig:
    """A whole run, from search to archive.

    Parameters
    ----------
    name
        Name of the run and of its archive.
    region
        (west, south, east, north) in lon/lat, or a vector file.
    years
        Years to map.
    search, grid, model
        Where scenes come from, the grid, the model.
    orbits
        Relative orbits that are joined, where the region is wider than a swath.
    year_start
        Month and day on which a year begins.
    cube, predict, area, outlines, glaciers, cluster
        Options of the stages.
    grd
        How scenes in radar geometry are calibrated and geocoded; without it they are refused.
    """

    __pydantic_config__ = _STRICT

    name: str
    region: tuple[float, float, float, float] | str
    years: tuple[int, ...]
    search: SearchSection
    grid: GridSection
    model: ModelSection
    year_start: str = "01-01"
    orbits: OrbitsSection = field(default_factory=OrbitsSection)
    cube: CubeSection = field(default_factory=CubeSection)
    grd: GrdSection = field(default_factory=GrdSection)
    predict: PredictSection = field(default_factory=PredictSection)
    area: AreaSection = field(default_factory=AreaSection)
    outlines: OutlinesSection = field(default_factory=OutlinesSection)
    glaciers: GlaciersSection = field(default_factory=GlaciersSection)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Refuse a name that the archive cannot have, and an inventory without a DEM."""
        if self.orbits.relative and self.search.relative_orbit is not None:
            raise InputError("search.relative_orbit and orbits.relative exclude each other: leave one out")
        if self.glaciers.earlier is not None and self.glaciers.dem is None:
            raise InputError("glaciers.earlier needs glaciers.dem: ice that is new is divided by the terrain")
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise InputError(
                f"name {self.name!r} is not allowed: use letters, digits, '_', '-' and '.', and none of "
                f"{', '.join(_TAKEN)}, which the run's own files have"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @property
    def digest(self) -> str:
        """Sha256 of everything that changes the result; how it is run (`cluster`) does not."""
        content = {key: value for key, value in self.to_dict().items() if key != "cluster"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_config(path: StrPath) -> RunConfig:
    """Read and check a YAML run configuration; paths in it are relative to the file's own folder.

    Raises
    ------
    ConfigError
        The file is missing or no YAML, a key is unknown (the nearest one is named), or a value is not allowed.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}): give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    config = parse_config(content, str(path))
    return _resolve(config, path.resolve().parent)


def parse_config(content: Any, origin: str) -> RunConfig:
    """Check the content of a configuration; `origin` names it in messages."""
    if not isinstance(content, dict):
        raise ConfigError(f"{origin} holds no mapping: it needs {', '.join(_required(RunConfig))}")
    try:
        return TypeAdapter(RunConfig).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """Return the first fault in one line, with the nearest known key."""
    # an unknown key explains a missing one, so it comes first
    first = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("tuple["))
    if first["type"] == "unexpected_keyword_argument":
        *parents, key = (str(part) for part in first["loc"])
        known = [one.name for one in dataclasses.fields(_section(parents))]
        return f"unknown key {where!r}{did_you_mean(key, known)}; known are {', '.join(known)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"key {where!r} is missing: add it"
    return f"{where}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})"


def _section(parents: list[str]) -> type[Any]:
    found: type[Any] = RunConfig
    for name in parents:
        found = get_type_hints(found)[name]
    return found


def _required(section: type[Any]) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(section) if f.default is missing and f.default_factory is missing]


def _resolve(config: RunConfig, base: Path) -> RunConfig:
    """Make paths that exist beside the configuration absolute; names and URLs stay."""

    def resolve(value: str) -> str:
        if "://" in value or Path(value).is_absolute() or not (base / value).exists():
            return value
        return str((base / value).resolve())

    def resolve_optional(value: str | None) -> str | None:
        return None if value is None else resolve(value)

    changes: dict[str, Any] = {
        "search": dataclasses.replace(config.search, provider=resolve(config.search.provider)),
        "model": dataclasses.replace(
            config.model, name=resolve(config.model.name), weights=resolve_optional(config.model.weights)
        ),
        "area": dataclasses.replace(
            config.area,
            calibrator=resolve_optional(config.area.calibrator),
            tiles=resolve_optional(config.area.tiles),
            block_errors=resolve_optional(config.area.block_errors),
        ),
        "orbits": dataclasses.replace(config.orbits, map=resolve_optional(config.orbits.map)),
        "predict": dataclasses.replace(config.predict, aoi=resolve_optional(config.predict.aoi)),
        "outlines": dataclasses.replace(config.outlines, edge_errors=resolve_optional(config.outlines.edge_errors)),
        "grd": dataclasses.replace(
            config.grd,
            dem=tuple(resolve(one) for one in config.grd.dem),
            geoid=resolve(config.grd.geoid) if isinstance(config.grd.geoid, str) else config.grd.geoid,
            stable=resolve_optional(config.grd.stable),
        ),
        "glaciers": dataclasses.replace(
            config.glaciers,
            dem=resolve_optional(config.glaciers.dem),
            earlier=resolve_optional(config.glaciers.earlier),
        ),
    }
    if isinstance(config.region, str):
        changes["region"] = resolve(config.region)
    return dataclasses.replace(config, **changes)
