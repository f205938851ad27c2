"""Provider profiles: which collections and assets of a catalogue hold which feature, and how rasters are opened.

A profile is one YAML file in `catalogs/providers`; `local.yaml` explains every key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pystac
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from icemap_xr import schema
from icemap_xr.access import Access
from icemap_xr.errors import AssetMissingError, ConfigError, InputError, did_you_mean
from icemap_xr.quotas import Limits
from icemap_xr.resources import catalog_path

Values = Literal["power", "amplitude", "dB", "coherence"]

#: polarisation of a raster of which neither its name nor its item tells one
UNKNOWN = ""

#: field of an ItemCollection under which `search` records what was asked of whom
PROVENANCE = "icemap:search"


@dataclass(frozen=True)
class Source:
    """Where a feature is read from.

    Parameters
    ----------
    feature
        Feature of the cube.
    collection
        STAC collection id.
    assets
        Asset key by polarisation, best first.
    values
        Form of the values: linear ``"power"``, its root ``"amplitude"``, ``"dB"`` or ``"coherence"``.
    radiometry
        ``"sigma0"``, ``"gamma0"`` or ``"beta0"`` where it is known. It is recorded and never mixed, and not converted:
        that takes the incidence angle or the scattering area of each pixel.
    geocoded
        Whether the rasters lie on a map grid. Those in radar geometry can be searched, and are refused by a cube.
    bands
        Band by polarisation, from 1, where the rasters have several.
    nodata
        Value that stands for "no observation" in rasters that declare none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    feature: str
    collection: str
    assets: dict[str, str] = field(default_factory=dict)
    values: Values = "power"
    radiometry: str | None = None
    geocoded: bool = True
    bands: dict[str, int] = field(default_factory=dict)
    nodata: float | None = None

    def __post_init__(self) -> None:
        """Check names and bands."""
        schema.feature(self.feature)
        wrong = {name: band for name, band in self.bands.items() if band < 1 or name not in self.assets}
        if wrong:
            raise ConfigError(f"bands {wrong} are not allowed: give a band from 1 for polarisations that assets name")

    def asset_key(self, item: pystac.Item, polarisation: str) -> str:
        """Return the asset key of an item, or raise `AssetMissingError`; `polarisations` says when one is unknown."""
        if polarisation == UNKNOWN and self.polarisations(item) == (UNKNOWN,):
            return next(one for one in self.assets.values() if one in item.assets)
        key, declared = self.assets.get(polarisation), item.properties.get("sar:polarizations")
        if key is None or key not in item.assets:
            raise AssetMissingError(
                f"item {item.id!r} has no asset {key or polarisation!r} for {self.feature} {polarisation}; it has "
                f"{', '.join(item.assets) or 'none'}: choose another polarisation or leave the item out"
            )
        if declared and polarisation not in declared:
            # one raster may stand under the names of all polarisations
            raise AssetMissingError(
                f"item {item.id!r} is of {', '.join(declared)}, not {polarisation}: choose another polarisation or "
                "leave the item out"
            )
        return key

    def polarisations(self, item: pystac.Item) -> tuple[str, ...]:
        """Return the polarisations an item offers, best first.

        Where several would be one and the same raster, nothing says of which it is: that is ``("",)``.
        """
        declared = item.properties.get("sar:polarizations")
        offers = tuple(
            name for name, key in self.assets.items() if key in item.assets and (not declared or name in declared)
        )
        places = {(self.assets[name], self.bands.get(name)) for name in offers}
        return (UNKNOWN,) if len(offers) > 1 and len(places) == 1 else offers


@dataclass(frozen=True)
class Quotas:
    """What a provider allows one user; None where it is not known.

    Connections, requests and bytes per second hold for all workers of a cluster together; see `icemap_xr.quotas`.

    Parameters
    ----------
    connections
        Connections at a time.
    mb_per_s
        Megabytes (1e6) per second and connection.
    tb_per_month
        Terabytes (1e12) per month; it is planned with, and not enforced.
    requests_per_min
        Requests per minute over all connections.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    connections: int | None = None
    mb_per_s: float | None = None
    tb_per_month: float | None = None
    requests_per_min: float | None = None

    def __post_init__(self) -> None:
        """Refuse a quota of nothing, and rates without connections to share them."""
        given = {one: value for one, value in asdict(self).items() if value is not None}
        for name, value in given.items():
            if not value > 0:
                raise ConfigError(
                    f"quotas.{name}={value} allows nothing: give more than 0, or leave it out where there is no limit"
                )
        if self.connections is None and {"mb_per_s", "requests_per_min"} & set(given):
            raise ConfigError("quotas.mb_per_s and quotas.requests_per_min need quotas.connections, which share them")

    def limits(self, name: str) -> Limits:
        """Return what reading from the provider of that name may take."""
        return Limits(name, self.connections, self.requests_per_min, self.mb_per_s)


@dataclass(frozen=True)
class Provider:
    """A catalogue, its sources and how they are opened; one YAML file in `catalogs/providers`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    title: str
    url: str | None
    sources: tuple[Source, ...]
    access: Access = field(default_factory=Access)
    quotas: Quotas = field(default_factory=Quotas)

    def __post_init__(self) -> None:
        """Refuse two sources of one feature in one collection: the second would hide the first."""
        named = [(one.feature, one.collection) for one in self.sources]
        twice = sorted({one for one in named if named.count(one) > 1})
        if twice:
            raise ConfigError(f"{twice[0][0]} of the collection {twice[0][1]!r} has two sources: keep one")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return json.loads(json.dumps(asdict(self)))


def parse_provider(content: Any, origin: str) -> Provider:
    """Check a profile's content against its schema.

    Raises
    ------
    ConfigError
        A key is unknown or a value is not allowed.
    """
    try:
        return TypeAdapter(Provider).validate_python(content)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{origin}: {where}: {first['msg']}") from None


@cache
def known_providers() -> Mapping[str, Provider]:
    """Return all shipped profiles by name."""
    found = [_read(path) for path in sorted(catalog_path("providers").glob("*.yaml"))]
    return {one.name: one for one in found}


def load_provider(name: str) -> Provider:
    """Return a shipped profile by name, or read one from a `.yaml` file."""
    if name in known_providers():
        return known_providers()[name]
    if name.endswith((".yaml", ".yml")) and Path(name).exists():
        return _read(Path(name))
    raise InputError(
        f"unknown provider {name!r}: known are {', '.join(known_providers())}{did_you_mean(name, known_providers())}; "
        "or give a URL, a catalog.json or a folder of rasters"
    )


def _read(path: Path) -> Provider:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    return parse_provider(content, str(path))
