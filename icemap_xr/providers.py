"""Provider profiles: which collections and assets of a catalogue hold which feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pystac
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from icemap_xr import schema
from icemap_xr.errors import AssetMissingError, ConfigError, InputError, did_you_mean
from icemap_xr.resources import catalog_path

Values = Literal["power", "dB", "coherence"]

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
        Form of the values: linear ``"power"``, ``"dB"`` or ``"coherence"``.
    radiometry
        ``"sigma0"``, ``"gamma0"`` or ``"beta0"`` where it is known.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    feature: str
    collection: str
    assets: dict[str, str] = field(default_factory=dict)
    values: Values = "power"
    radiometry: str | None = None

    def __post_init__(self) -> None:
        """Check the feature's name."""
        schema.feature(self.feature)

    def asset(self, item: pystac.Item, polarisation: str) -> pystac.Asset:
        """Return the asset of an item, or raise `AssetMissingError`."""
        key = self.assets.get(polarisation)
        if key is None or key not in item.assets:
            raise AssetMissingError(
                f"item {item.id!r} has no asset {key or polarisation!r} for {self.feature} {polarisation}; it has "
                f"{', '.join(item.assets) or 'none'}: choose another polarisation or leave the item out"
            )
        return item.assets[key]

    def polarisations(self, item: pystac.Item) -> tuple[str, ...]:
        """Return the polarisations an item offers, best first."""
        declared = item.properties.get("sar:polarizations")
        return tuple(
            name for name, key in self.assets.items() if key in item.assets and (not declared or name in declared)
        )


@dataclass(frozen=True)
class Provider:
    """A catalogue and its sources; one YAML file in `catalogs/providers`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    title: str
    url: str | None
    sources: tuple[Source, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"sources": [asdict(source) for source in self.sources]}


def parse_provider(content: Any, origin: str) -> Provider:
    """Check a profile's content against its schema.

    Raises
    ------
    ConfigError
        A key is unknown or a value is not allowed.
    """
    try:
        return TypeAdapter(Provider).validate_python(content)
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
