"""Products of processing services as STAC items, from the names of their files: HyP3 (ASF) and CARD-COH (CREODIAS).

What a product is made of and in which form its values come is in its name; orbits are in the text files beside it.
Names and layouts:

- HyP3 GAMMA RTC and InSAR: the ``README.md.txt`` in each product (github.com/ASFHyP3/hyp3-gamma,
  hyp3_gamma/metadata/templates). Outside the image GAMMA writes 0.
- HyP3 ISCE bursts: the names that MintPy's prep_hyp3 reads (github.com/insarlab/MintPy).
- CARD-COH: an entry of the Copernicus Data Space catalogue
  (``S1A_20240101T010035__1A__20231220T010010_20231220T010035_CARD-COH12``); the six bands, which carry no names, from
  its keepers' answer in forum.dataspace.copernicus.eu/t/4994; 0 outside the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pystac

from icemap_xr.errors import InputError
from icemap_xr.sentinel1 import burst_orbit_state, burst_relative_orbit, product_properties
from icemap_xr.stac_build import PROCESSING, Orbit, Raster, coherence_item, open_header, sar_item

HYP3_RTC = "hyp3-rtc"
HYP3_COHERENCE = "hyp3-insar"
CARD_COHERENCE = "card-coh"

#: key of the asset of a CARD-COH product, which holds all bands
CARD_ASSET = "product"
#: bands of a CARD-COH product, in order
CARD_BANDS = ("coh_VH", "int_VH", "phase_VH", "coh_VV", "int_VV", "phase_VV")

_TIME = r"\d{8}T\d{6}"
_END = r"(?P<layer>[A-Za-z_]+?)(?:_clip(?:ped)?)?\.tiff?"
_RTC = re.compile(
    rf"(?P<base>S1(?P<unit>[ABCD])_(?P<mode>IW|EW|S[1-6])_(?P<start>{_TIME})_[SD][HV][PRO]_RTC(?P<spacing>\d+)_G"
    rf"_(?P<radiometry>[gs])(?P<scale>[pad])[uw](?P<filter>[nf])[ec][dm]_[0-9A-F]{{4}})_{_END}"
)
_INSAR = re.compile(
    rf"(?P<base>S1(?P<unit>[ABCD])(?P<other>[ABCD])_(?P<first>{_TIME})_(?P<second>{_TIME})_(?P<polarisation>VV|HH)[PRO]"
    rf"(?P<days>\d{{3}})_INT(?P<spacing>\d+)_G_[uw][ec][123F]_[0-9A-F]{{4}})_{_END}"
)
_ISCE = re.compile(
    r"(?P<base>S1[ABCD]?_(?:(?P<burst>\d{6})_IW[123]|(?P<track>\d{3})_\w+?(?:-\w+)*)_(?P<first>\d{8})_(?P<second>\d{8})"
    rf"_(?P<polarisation>VV|HH)_INT(?P<spacing>\d+)_[0-9A-F]{{4}})_{_END}"
)
_CARD = re.compile(
    rf"(?P<base>S1(?P<unit>[ABCD])_(?P<second>{_TIME})__1(?P<other>[ABCD])__(?P<first>{_TIME})_{_TIME}"
    r"_CARD-COH(?P<days>\d+))"
)
_POLARISATIONS = ("VV", "VH", "HH", "HV")
_SCALES = {"p": "power", "a": "amplitude", "d": "dB"}
_RADIOMETRIES = {"g": "gamma0", "s": "sigma0"}
_GRANULE = re.compile(r"\bS1[ABCD]_\w{2}_(?:GRD|SLC)\w*")


@dataclass(frozen=True)
class ProductFile:
    """A file that belongs to a product.

    Parameters
    ----------
    path
        The file.
    base
        Name of the product.
    layer
        What the file holds, such as ``"VV"``, ``"corr"`` or ``"dem"``.
    make
        Makes the product's item of all its files; None for layers that no cube needs.
    match
        What the name says.
    """

    path: Path
    base: str
    layer: str
    make: Callable[[Sequence[ProductFile]], pystac.Item] | None
    match: re.Match[str]


def product_file(path: Path) -> ProductFile | None:
    """Return what a raster file is, by its name, or None if its name is of no known product."""
    for pattern, make, measured in (
        (_RTC, _rtc_item, _POLARISATIONS),
        (_INSAR, _insar_item, ("corr",)),
        (_ISCE, _isce_item, ("corr",)),
    ):
        if match := pattern.fullmatch(path.name):
            wanted = match["layer"] in measured
            return ProductFile(path, match["base"], match["layer"], make if wanted else None, match)
    # the name is that of the file or of its folder
    for name in (path.stem, path.parent.name):
        if match := _CARD.fullmatch(name):
            return ProductFile(path, match["base"], "", _card_item, match)
    return None


def product_items(files: Sequence[ProductFile]) -> list[pystac.Item]:
    """Return one item per product; layers that no cube needs are left out.

    Raises
    ------
    InputError
        A name contradicts itself or the text file beside it, or a CARD-COH file has other than six bands.
    """
    groups: dict[tuple[Path, str], list[ProductFile]] = {}
    for one in files:
        if one.make is not None:
            groups.setdefault((one.path.parent, one.base), []).append(one)
    return [group[0].make(group) for group in groups.values() if group[0].make is not None]


def _rtc_item(files: Sequence[ProductFile]) -> pystac.Item:
    first = files[0]
    match, assets = first.match, {one.layer: open_header(one.path) for one in files}
    if len(assets) < len(files):
        raise InputError(f"{first.path.parent} holds a polarisation of {first.base} twice: remove one")
    start = _time(match["start"])
    source = _granule(first.path.with_name(f"{first.base}.README.md.txt"), start)
    scale, radiometry = _SCALES[match["scale"]], _RADIOMETRIES[match["radiometry"]]
    filtered = "speckle filter" if match["filter"] == "f" else "no speckle filter"
    return sar_item(
        first.base,
        assets,
        time=start,
        collection=f"{HYP3_RTC}-{radiometry}-{scale}",
        product_type="RTC",
        unit="dB" if scale == "dB" else "1",
        orbit=Orbit(
            f"sentinel-1{match['unit'].lower()}",
            source.get("sat:relative_orbit"),
            source.get("sat:absolute_orbit"),
            mode=match["mode"],
        ),
        properties={PROCESSING: f"HyP3 RTC{match['spacing']}, {filtered}"},
    )


def _insar_item(files: Sequence[ProductFile]) -> pystac.Item:
    match, path = files[0].match, _only(files)
    told = _parameters(path.with_name(f"{files[0].base}.txt"))
    granules = [told.get(f"{which} Granule", "") for which in ("Reference", "Secondary")]
    times = (_time(match["first"]), _time(match["second"]))
    _check_days(path, times, int(match["days"]))
    source: Mapping[str, Any] = product_properties(granules[0]) if granules[0] else {}
    units = {match["unit"], match["other"]}
    orbit = Orbit(
        f"sentinel-1{match['unit'].lower()}" if len(units) == 1 else None,
        source.get("sat:relative_orbit"),
        source.get("sat:absolute_orbit"),
        told.get("Reference Pass Direction", "").lower() or None,
        source.get("sar:instrument_mode"),
    )
    return _pair(files[0].base, open_header(path), times, HYP3_COHERENCE, orbit, match)


def _isce_item(files: Sequence[ProductFile]) -> pystac.Item:
    match, path = files[0].match, _only(files)
    told = _parameters(path.with_name(f"{files[0].base}.txt"))
    times = tuple(datetime.strptime(match[key], "%Y%m%d").replace(tzinfo=UTC) for key in ("first", "second"))
    if match["burst"]:
        track = burst_relative_orbit(int(match["burst"]))
        state: str | None = burst_orbit_state(track, int(match["burst"]))
    else:
        track, state = int(match["track"]), told.get("Reference Pass Direction", "").lower() or None
    return _pair(files[0].base, open_header(path), times, HYP3_COHERENCE, Orbit(relative=track, state=state), match)


def _card_item(files: Sequence[ProductFile]) -> pystac.Item:
    match, path = files[0].match, _only(files)
    raster = open_header(path)
    if raster.bands != len(CARD_BANDS):
        raise InputError(
            f"{path} has {raster.bands} bands, a CARD-COH product has {len(CARD_BANDS)} ({', '.join(CARD_BANDS)}): "
            "leave it out, or write items for it and a profile that names its bands"
        )
    times = (_time(match["first"]), _time(match["second"]))
    _check_days(path, times, int(match["days"]))
    units = {match["unit"], match["other"]}
    orbit = Orbit(f"sentinel-1{match['unit'].lower()}" if len(units) == 1 else None, mode="IW")
    item = _pair(files[0].base, raster, times, CARD_COHERENCE, orbit, match)
    asset = item.assets.pop("coherence")
    (band,) = asset.extra_fields["raster:bands"]
    asset.extra_fields["raster:bands"] = [band | {"name": name} for name in CARD_BANDS]
    asset.title = "Coherence, intensity and phase"
    item.add_asset(CARD_ASSET, asset)
    item.properties["sar:polarizations"] = ["VH", "VV"]
    return item


def _pair(
    name: str,
    raster: Raster,
    times: Sequence[datetime],
    collection: str,
    orbit: Orbit,
    match: re.Match[str],
) -> pystac.Item:
    """Return the item of a pair; which of the two dates was the reference does not change coherence."""
    first, second = sorted(times)
    known = match.groupdict()
    spacing = f"HyP3 INT{known['spacing']}" if known.get("spacing") else None
    return coherence_item(
        name,
        raster,
        first=first,
        second=second,
        collection=collection,
        orbit=orbit,
        polarisation=known.get("polarisation"),
        properties={PROCESSING: spacing} if spacing else None,
    )


def _only(files: Sequence[ProductFile]) -> Path:
    if len(files) > 1:
        raise InputError(f"{files[0].path} and {files[1].path} are the same product: remove one")
    return files[0].path


def _check_days(path: Path, times: Sequence[datetime], days: int) -> None:
    apart = abs(times[1] - times[0])
    if abs(apart - timedelta(days=days)) > timedelta(hours=12):
        raise InputError(
            f"{path} is named a pair of {days} days, and its dates lie {apart.days} days apart: correct the name"
        )


def _granule(readme: Path, start: datetime) -> Mapping[str, Any]:
    """Return what the scene's name in a product's own description says; nothing where there is no description."""
    text = readme.read_text(errors="replace") if readme.exists() else ""
    found = next((known for name in _GRANULE.findall(text) if (known := product_properties(name))), {})
    if found and datetime.fromisoformat(found["start_datetime"].replace("Z", "+00:00")) != start:
        raise InputError(f"{readme} names a scene of {found['start_datetime']}, the product is of {start}: mend one")
    return found


def _parameters(path: Path) -> dict[str, str]:
    """Return the lines ``name: value`` of a product's text file; nothing where there is no file."""
    if not path.exists():
        return {}
    parts = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
    return {name.strip(): value.strip() for name, _, value in parts if value.strip()}


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
