"""What the annotation of a Sentinel-1 GRD product says: its identity, geometry, calibration and noise.

Source of names and forms: "Sentinel-1 Product Specification" (S1-RS-MDA-52-7441). Times become seconds since the
product's first line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import AnnotationError
from icemap_xr.grd.safexml import child, moment, number, numbers, parse, text
from icemap_xr.kernels.lut import AzimuthFactor, NoiseTable, RangeVectors
from icemap_xr.kernels.rangedoppler import GroundRange, Orbit

Radiometry = Literal["sigma0", "gamma0", "beta0"]
_TABLES = {"sigma0": "sigmaNought", "gamma0": "gamma", "beta0": "betaNought"}
MODES = ("IW", "EW")
#: as many spacings of its vectors may a table reach beyond the image; real ones reach 1 to 2
_BEYOND = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Identity:
    """What all annotation files of one image have in common.

    Parameters
    ----------
    mission, product_type, polarisation, mode
        Such as ``"S1A"``, ``"GRD"``, ``"HH"``, ``"EW"``.
    orbit
        Absolute orbit.
    take
        Number of the data take.
    start
        UTC time of the first line.
    """

    mission: str
    product_type: str
    polarisation: str
    mode: str
    orbit: int
    take: int
    start: np.datetime64

    def __str__(self) -> str:
        """Name the image as its product does."""
        return f"{self.mission} {self.mode} {self.polarisation} {self.start.astype('M8[s]')} orbit {self.orbit:06d}"


@dataclass(frozen=True)
class TiePoints:
    """Ground control points: `line` and `pixel` count centres from 0; degrees and metres above WGS 84."""

    line: Floats
    pixel: Floats
    lon: Floats
    lat: Floats
    height: Floats


@dataclass(frozen=True)
class Annotation:
    """The product annotation of one image.

    Parameters
    ----------
    identity
        Whose annotation it is.
    lines, samples
        Size of the image.
    spacing
        Size of a pixel along azimuth and along ground range, metres.
    interval
        Seconds between lines.
    orbit, ground_range
        Geometry.
    shift
        Pixels, and how many lines a target there lies after its zero-Doppler time divided by `interval` (at most 0.2):
        the processor's timing along azimuth depends on range, as the annotated grid shows.
    points
        The annotated grid.
    denoised
        Whether the noise has been removed already.
    """

    identity: Identity
    lines: int
    samples: int
    spacing: tuple[float, float]
    interval: float
    orbit: Orbit
    ground_range: GroundRange
    shift: tuple[Floats, Floats]
    points: TiePoints
    denoised: bool


def read_annotation(content: bytes, name: str) -> Annotation:
    """Read the product annotation (`annotation/*.xml`).

    Raises
    ------
    AnnotationError
        The file is damaged, or not of a GRD product in IW or EW mode.
    """
    root = _root(content, name, "product")
    identity = _identity(root, name)
    image = child(root, "imageAnnotation/imageInformation", name)
    start = moment(image, "productFirstLineUtcTime", name)
    samples = int(number(image, "numberOfSamples", name))
    spacing = (number(image, "azimuthPixelSpacing", name), number(image, "rangePixelSpacing", name))
    interval = number(image, "azimuthTimeInterval", name)
    if samples < 2 or min(*spacing, interval) <= 0:
        raise AnnotationError(f"{name} has {samples} samples of {spacing} m, {interval} s: it is damaged")
    grid = root.findall("geolocationGrid/geolocationGridPointList/geolocationGridPoint")
    if not grid:
        raise AnnotationError(f"{name} has no geolocation grid: it is damaged")
    line, pixel, lat, lon, height = (
        np.array([number(p, key, name) for p in grid]) for key in ("line", "pixel", "latitude", "longitude", "height")
    )
    times = np.array([_seconds(p, "azimuthTime", start, name) for p in grid])
    across = np.unique(pixel)
    late = np.array([(line - times / interval)[pixel == p].mean() for p in across])
    performed = root.findtext("imageAnnotation/processingInformation/thermalNoiseCorrectionPerformed", "false")
    return Annotation(
        identity=identity,
        lines=int(number(image, "numberOfLines", name)),
        samples=samples,
        spacing=spacing,
        interval=interval,
        orbit=_orbit(root, start, name),
        ground_range=_ground_range(root, start, (samples - 1) * spacing[1], name),
        shift=(across, late),
        points=TiePoints(line, pixel, lon, lat, height),
        denoised=performed.strip().lower() == "true",
    )


def _root(content: bytes, name: str, kind: str) -> Element:
    root = parse(content, name)
    if root.tag != kind:
        raise AnnotationError(f"{name} is a {root.tag!r} document, wanted is {kind!r}: it is another file's annotation")
    return root


def _identity(root: Element, name: str) -> Identity:
    header = child(root, "adsHeader", name)
    mission, kind, polarisation, mode = (
        text(header, key, name) for key in ("missionId", "productType", "polarisation", "mode")
    )
    if kind != "GRD":
        raise AnnotationError(f"{name} is of a {kind} product: only GRD can be calibrated here")
    if mode not in MODES:
        raise AnnotationError(
            f"{name} is of mode {mode}: allowed are {' and '.join(MODES)}; leave the scene out (no annotation of "
            "another mode was at hand to check its noise and geometry)"
        )
    orbit, take = (int(number(header, key, name)) for key in ("absoluteOrbitNumber", "missionDataTakeId"))
    return Identity(mission, kind, polarisation, mode, orbit, take, moment(header, "startTime", name))


def _seconds(element: Element, path: str, start: np.datetime64, name: str) -> float:
    return float((moment(element, path, name) - start) / np.timedelta64(1, "ns")) * 1e-9


def _orbit(root: Element, start: np.datetime64, name: str) -> Orbit:
    states = root.findall("generalAnnotation/orbitList/orbit")
    if len(states) < 4:
        raise AnnotationError(f"{name} has {len(states)} orbit state vectors, wanted are 4 or more: it is damaged")
    if any(text(state, "frame", name) != "Earth Fixed" for state in states):
        raise AnnotationError(f"{name} has orbit state vectors in another frame than 'Earth Fixed': it is damaged")
    times = np.array([_seconds(state, "time", start, name) for state in states])
    if (np.diff(times) <= 0).any():
        raise AnnotationError(f"{name} has orbit state vectors out of order: it is damaged")
    vectors = [
        np.array([[number(state, f"{kind}/{axis}", name) for axis in "xyz"] for state in states])
        for kind in ("position", "velocity")
    ]
    return Orbit(times, vectors[0], vectors[1])


def _ground_range(root: Element, start: np.datetime64, longest: float, name: str) -> GroundRange:
    records = root.findall("coordinateConversion/coordinateConversionList/coordinateConversion")
    if not records:
        raise AnnotationError(f"{name} has no polynomials of ground range: it is damaged")
    times = np.array([_seconds(record, "azimuthTime", start, name) for record in records])
    origins = {number(record, "gr0", name) for record in records}
    rows = [numbers(record, "grsrCoefficients", name) for record in records]
    if len(origins) != 1 or len({row.size for row in rows}) != 1 or rows[0].size < 2 or (np.diff(times) <= 0).any():
        raise AnnotationError(f"{name} has polynomials of ground range that do not fit together: it is damaged")
    return GroundRange(times, origins.pop(), np.array(rows), longest)


@dataclass(frozen=True)
class Calibration:
    """A calibration table and whose it is."""

    identity: Identity
    table: RangeVectors


def read_calibration(content: bytes, name: str, radiometry: Radiometry = "sigma0") -> Calibration:
    """Read a calibration table (`annotation/calibration/calibration-*.xml`).

    Raises
    ------
    AnnotationError
        The file is damaged.
    """
    root = _root(content, name, "calibration")
    found = root.findall("calibrationVectorList/calibrationVector")
    table = _vectors(found, _TABLES[radiometry], name)
    if min(float(values.min()) for values in table.values) <= 0:
        raise AnnotationError(f"{name} has a {_TABLES[radiometry]} of 0 or less: it is damaged")
    return Calibration(_identity(root, name), table)


@dataclass(frozen=True)
class Noise:
    """A noise table and whose it is.

    Parameters
    ----------
    identity, table
        The table.
    form
        ``"range"`` before processor version 2.90 (March 2018), ``"range and azimuth"`` since.
    """

    identity: Identity
    table: NoiseTable
    form: Literal["range", "range and azimuth"]


def read_noise(content: bytes, name: str) -> Noise:
    """Read a noise table (`annotation/calibration/noise-*.xml`) of either form.

    Raises
    ------
    AnnotationError
        The file is damaged.
    """
    root = _root(content, name, "noise")
    identity = _identity(root, name)
    if root.find("noiseVectorList") is not None:
        vectors = _vectors(root.findall("noiseVectorList/noiseVector"), "noiseLut", name)
        return Noise(identity, NoiseTable(vectors), "range")
    vectors = _vectors(root.findall("noiseRangeVectorList/noiseRangeVector"), "noiseRangeLut", name)
    factors = tuple(_factor(one, name) for one in root.findall("noiseAzimuthVectorList/noiseAzimuthVector"))
    return Noise(identity, NoiseTable(vectors, factors), "range and azimuth")


def _vectors(found: list[Element], key: str, name: str) -> RangeVectors:
    if not found:
        raise AnnotationError(f"{name} has no vectors of {key}: it is damaged, or of a form that is not known")
    lines = np.array([number(one, "line", name) for one in found])
    pixels = tuple(numbers(one, "pixel", name) for one in found)
    values = tuple(numbers(one, key, name) for one in found)
    sizes = all(p.size == v.size > 0 for p, v in zip(pixels, values, strict=True))
    if not sizes or (np.diff(lines) <= 0).any() or any((np.diff(p) <= 0).any() for p in pixels):
        raise AnnotationError(f"{name} has vectors of {key} out of order or without a value for each pixel")
    if min(float(v.min()) for v in values) < 0:
        raise AnnotationError(f"{name} has a negative {key}: it is damaged")
    return RangeVectors(lines, pixels, values)


def _factor(one: Element, name: str) -> AzimuthFactor:
    corners = ("firstAzimuthLine", "lastAzimuthLine", "firstRangeSample", "lastRangeSample")
    # products of wave mode and of early versions lack the corners; of these modes all have them
    first, last, left, right = (int(number(one, key, name)) for key in corners)
    lines, values = numbers(one, "line", name), numbers(one, "noiseAzimuthLut", name)
    if lines.size != values.size or not lines.size or (np.diff(lines) <= 0).any() or first > last or left > right:
        raise AnnotationError(f"{name} has a noiseAzimuthVector out of order or without a value for each line")
    return AzimuthFactor(first, last, left, right, lines, values)


def check_extent(table: RangeVectors, lines: int, samples: int, name: str) -> None:
    """Refuse a table that reaches so far beyond the image that it must be another's, or the image was cut.

    Raises
    ------
    AnnotationError
        It does.
    """
    step = float(np.median(np.diff(table.lines))) if len(table.lines) > 1 else 0.0
    last, right = float(table.lines[-1]), max(float(p[-1]) for p in table.pixels)
    wide = max(float(np.diff(p).max()) if p.size > 1 else 0.0 for p in table.pixels)
    if last > lines - 1 + _BEYOND * step or right > samples - 1 + wide:
        raise AnnotationError(
            f"{name} reaches to line {last:.0f} and pixel {right:.0f}, the image has {lines} x {samples}: it belongs "
            "to another product, or the image was cut or resampled; take the product as it was published"
        )
