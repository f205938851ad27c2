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
from icemap_xr.kernels.windows import Blend
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
    """See `ds.icemap.predict`."""

    __pydantic_config__ = _STRICT

    overlap: float = 0.5
    blend: Blend = "gaussian"
    sigma: float = 0.5
    batch_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    gaps: Gaps = "error"


@dataclass(frozen=True)
class AreaSection:
    """Areas and their intervals; see `ds.icemap.area` and `ds.icemap.bootstrap_area`.

    `calibrator` is a JSON file; without it the model's own calibration is used if it has one, else none.
    """

    __pydantic_config__ = _STRICT

    calibrator: str | None = None
    method: Method = "soft"
    block: str = "3.2km"
    draws: int = 10_000
    seed: int = 42
    level: float = 0.95
    interval: Literal["sampling", "mapping"] = "sampling"
    estimator: Literal["ratio", "sum"] = "ratio"


@dataclass(frozen=True)
class OutlinesSection:
    """See `ds.icemap.outlines`."""

    __pydantic_config__ = _STRICT

    threshold: float = 0.5
    min_area_km2: float = 0.0


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
    year_start
        Month and day on which a year begins.
    cube, predict, area, outlines, cluster
        Options of the stages.
    """

    __pydantic_config__ = _STRICT

    name: str
    region: tuple[float, float, float, float] | str
    years: tuple[int, ...]
    search: SearchSection
    grid: GridSection
    model: ModelSection
    year_start: str = "01-01"
    cube: CubeSection = field(default_factory=CubeSection)
    predict: PredictSection = field(default_factory=PredictSection)
    area: AreaSection = field(default_factory=AreaSection)
    outlines: OutlinesSection = field(default_factory=OutlinesSection)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Refuse a name that the archive cannot have."""
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
        "area": dataclasses.replace(config.area, calibrator=resolve_optional(config.area.calibrator)),
    }
    if isinstance(config.region, str):
        changes["region"] = resolve(config.region)
    return dataclasses.replace(config, **changes)
