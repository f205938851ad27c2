"""STAC items for the raster files of a folder, and static catalogues of items."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pystac

from icemap_xr.errors import EmptySearchError, InputError
from icemap_xr.products import ProductFile, product_file, product_items
from icemap_xr.sentinel1 import absolute_orbit, burst_orbit_state
from icemap_xr.stac_build import COHERENCE_COLLECTION, Orbit, Raster, coherence_item, open_header, sar_item
from icemap_xr.types import StrPath

__all__ = [
    "COHERENCE_COLLECTION",
    "OPERA_COLLECTION",
    "Orbit",
    "Raster",
    "coherence_item",
    "items_from_files",
    "open_header",
    "sar_item",
    "state_orbit",
    "write_catalog",
]

_LOG = logging.getLogger(__name__)

OPERA_COLLECTION = "opera-s1-rtc"

#: what `items_from_files` recognises, for messages
PATTERNS = (
    "OPERA_L2_RTC-S1_<burst>_<start>_<processed>_<S1A|S1B|S1C|S1D>_30_v1.0_<polarisation>.tif",
    "*_<YYYYMMDD>-<YYYYMMDD>_<polarisation>_*cc.tif",
    "*.tif with the tags FIRST_DATE and SECOND_DATE",
    "HyP3 S1A_IW_<start>_DVP_RTC30_G_gpuned_<id>_VV.tif",
    "HyP3 S1AA_<start>_<start>_VVP012_INT80_G_ueF_<id>_corr.tif",
    "S1A_<start>__1A__<start>_<stop>_CARD-COH12 (folder or file of six bands)",
)
_OPERA = re.compile(
    r"(?P<granule>OPERA_L2_RTC-S1_T(?P<track>\d{3})-(?P<burst>\d{6})-(?P<swath>IW[123])_(?P<start>\d{8}T\d{6}Z)"
    r"_(?P<processed>\d{8}T\d{6}Z)_S1(?P<unit>[ABCD])_(?P<spacing>\d+)_v[\d.]+)_(?P<polarisation>VV|VH|HH|HV)\.tiff?"
)
_PAIR = re.compile(r".*?(?P<first>\d{8})-(?P<second>\d{8})_(?P<polarisation>VV|VH|HH|HV)_(?:.*_)?cc\.tiff?")
_SUFFIXES = (".tif", ".tiff")


def items_from_files(folder: StrPath) -> pystac.ItemCollection:
    """Return the items of all rasters in a folder and its sub-folders, by time.

    Recognised are OPERA RTC-S1 files (linear power gamma zero; one item per acquisition and burst), coherence
    rasters whose dates are in the name or in the tags FIRST_DATE, FIRST_TIME, SECOND_DATE, SECOND_TIME (one item per
    pair), and products of HyP3 (RTC, InSAR) and CARD-COH in their own folders, see `icemap_xr.products`. Other rasters
    are named in a logged warning. Of an acquisition that was processed twice the newest is taken.

    Parameters
    ----------
    folder
        Where the files are.

    Raises
    ------
    InputError
        The folder does not exist, or the name and tags of a file contradict each other.
    EmptySearchError
        No file was recognised.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is not a folder: give the folder that holds the rasters")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    opera: dict[str, list[tuple[re.Match[str], Path]]] = {}
    items: list[pystac.Item] = []
    products: list[ProductFile] = []
    unknown: list[Path] = []
    for path in files:
        if match := _OPERA.fullmatch(path.name):
            opera.setdefault("_".join(match.group("track", "burst", "start", "unit")), []).append((match, path))
        elif (product := product_file(path)) is not None:
            products.append(product)
        elif (item := _coherence_file(path)) is not None:
            items.append(item)
        else:
            unknown.append(path)
    items += [_opera_item(group) for group in opera.values()]
    items += product_items(products)
    if unknown:
        _LOG.warning("not recognised and left out: %s", ", ".join(str(path) for path in unknown))
    if not items:
        raise EmptySearchError(
            f"no recognised raster among {len(files)} .tif files in {str(root)!r}: "
            f"names must match {'; '.join(PATTERNS)}"
        )
    _refuse_duplicates(items)
    items.sort(key=lambda item: (item.get_datetime() or datetime.min.replace(tzinfo=UTC), item.id))
    return pystac.ItemCollection(items)


def state_orbit(items: Iterable[pystac.Item], relative_orbit: int | None, orbit_state: str | None) -> None:
    """Give items the orbit that their files do not tell, such as of coherence rasters and CARD-COH products.

    Raises
    ------
    InputError
        An item tells another one.
    """
    for name, value in (("sat:relative_orbit", relative_orbit), ("sat:orbit_state", orbit_state)):
        for item in items if value is not None else ():
            if item.properties.setdefault(name, value) != value:
                raise InputError(f"item {item.id!r} says {name} {item.properties[name]}, not {value}: leave it out")


def _refuse_duplicates(items: Iterable[pystac.Item]) -> None:
    seen: dict[str, str] = {}
    for item in items:
        href = next(iter(item.assets.values())).href
        if item.id in seen:
            raise InputError(f"{seen[item.id]} and {href} would be the same item {item.id!r}: remove or rename one")
        seen[item.id] = href


def _opera_item(group: Sequence[tuple[re.Match[str], Path]]) -> pystac.Item:
    newest = max(match["processed"] for match, _ in group)
    older = sorted(path.name for match, path in group if match["processed"] != newest)
    if older:
        _LOG.info("processed again at %s, left out: %s", newest, ", ".join(older))
    chosen = [(match, path) for match, path in group if match["processed"] == newest]
    match = chosen[0][0]
    assets: dict[str, Raster] = {}
    for one, path in chosen:
        if one["polarisation"] in assets:
            raise InputError(f"{path} and {assets[one['polarisation']].path} hold the same acquisition: remove one")
        assets[one["polarisation"]] = open_header(path)
    time = datetime.strptime(match["start"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    platform, track, burst = f"sentinel-1{match['unit'].lower()}", int(match["track"]), int(match["burst"])
    return sar_item(
        match["granule"],
        assets,
        time=time,
        collection=OPERA_COLLECTION,
        product_type="RTC",
        unit="1",
        orbit=Orbit(platform, track, absolute_orbit(platform, track, time), burst_orbit_state(track, burst), "IW"),
        properties={"opera:burst_id": f"T{match['track']}-{match['burst']}-{match['swath']}"},
    )


def _coherence_file(path: Path) -> pystac.Item | None:
    match = _PAIR.fullmatch(path.name)
    raster = open_header(path)
    tagged = _tagged_times(raster)
    if match is None and tagged is None:
        return None
    named = (_day(match["first"], path), _day(match["second"], path)) if match else None
    if named and tagged and named != (tagged[0].date(), tagged[1].date()):
        raise InputError(
            f"{path} is named {named[0]} to {named[1]} but tagged {tagged[0].date()} to {tagged[1].date()}: "
            "correct the name or the tags"
        )
    first, second = tagged or (datetime.combine(day, datetime.min.time(), UTC) for day in (named or ()))
    return coherence_item(
        path.stem, raster, first=first, second=second, polarisation=match["polarisation"] if match else None
    )


def _tagged_times(raster: Raster) -> tuple[datetime, datetime] | None:
    tags = raster.tags
    if "FIRST_DATE" not in tags or "SECOND_DATE" not in tags:
        return None
    texts = [f"{tags[f'{which}_DATE']}T{tags.get(f'{which}_TIME', '00:00:00')}" for which in ("FIRST", "SECOND")]
    try:
        first, second = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts)
    except ValueError:
        raise InputError(
            f"{raster.path} has the dates {texts} in its tags: they must be YYYY-MM-DD and HH:MM:SS"
        ) from None
    return first, second


def _day(text: str, path: Path) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise InputError(f"{path} has the date {text} in its name: dates must be YYYYMMDD") from None


def write_catalog(items: Iterable[pystac.Item], folder: StrPath, *, title: str) -> Path:
    """Write items as a self-contained static catalogue with relative links: the folder can be moved as a whole.

    Parameters
    ----------
    items
        Items, each with the name of its collection.
    folder
        Where `catalog.json` and one folder per collection go.
    title
        What the catalogue is, in one line.

    Returns
    -------
    Path
        `catalog.json`.

    Raises
    ------
    InputError
        There are no items, an item names no collection, or two items of a collection have the same name.
    """
    groups: dict[str, dict[str, pystac.Item]] = {}
    for item in items:
        if not item.collection_id:
            raise InputError(f"item {item.id!r} names no collection: set item.collection_id")
        group = groups.setdefault(item.collection_id, {})
        if item.id in group:
            raise InputError(f"two items are named {item.id!r} in {item.collection_id!r}: rename one")
        group[item.id] = item.clone()
    if not groups:
        raise InputError("a catalogue needs at least one item, got none")
    catalog = pystac.Catalog("catalog", description=title, title=title)
    for name, group in sorted(groups.items()):
        extent = pystac.Extent.from_items(group.values())
        collection = pystac.Collection(name, description=f"{title}: {name}", title=name, extent=extent, license="other")
        collection.add_items(group.values())
        catalog.add_child(collection)
    root = Path(folder).resolve()
    # given a folder whose name holds a dot, pystac would take it for a file and write into its parent
    catalog.normalize_hrefs(str(root / "catalog.json"))
    catalog.make_all_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    return root / "catalog.json"
