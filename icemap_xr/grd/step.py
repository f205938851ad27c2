"""One block of the map from one image: read, calibrated, cleaned of noise and borders, and resampled."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from icemap_xr import schema
from icemap_xr.errors import GeolocationError
from icemap_xr.grd.geometry import GcpGeometry, Geometry, RangeDoppler
from icemap_xr.grd.options import GrdOptions
from icemap_xr.grd.placing import block_heights, block_relief, place
from icemap_xr.grd.product import Fetch, Header, Image, load_image, read_header
from icemap_xr.kernels import borders
from icemap_xr.kernels.lut import calibrated
from icemap_xr.kernels.regrid import Sampler, footprint
from icemap_xr.urls import scrub

Values = NDArray[np.float32]
#: is told of an open raster which rows and columns were read
Took = Callable[[Any, slice, slice], None]

#: lines and pixels within which a border is followed from an edge of the image; the steps at the ends of a data take
#: of EW are 1400 lines long
BORDER = 2000
#: images whose annotation is kept: those of one scene and of its neighbours; each has some MB
_KEPT = 8


@dataclass(frozen=True)
class Loaded:
    """An image with its geometry, as kept in each process."""

    header: Header
    image: Image
    geometry: Geometry


class _Cache:
    """The last images of this process; their annotation takes as long to read as a block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Any, Loaded] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Loaded]) -> Loaded:
        # held while reading, so that two blocks of one scene do not both read it
        with self._lock:
            if key not in self._known:
                self._known[key] = make()
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]


_IMAGES = _Cache()


def load(src: Any, href: str, polarisation: str | None, options: GrdOptions, fetch: Fetch) -> Loaded:
    """Return an image's annotation and geometry, from memory where it was read before.

    Parameters
    ----------
    src
        The open raster.
    href
        Its path or address, without a signature.
    polarisation
        What it should hold; None for any.
    options
        How it is calibrated and placed.
    fetch
        Returns the content of a file.
    """

    def make() -> Loaded:
        header = read_header(src, scrub(href))
        image = load_image(
            href,
            header,
            polarisation,
            fetch,
            radiometry=options.radiometry,
            noise=options.noise,
            border=options.border,
        )
        return Loaded(header, image, _geometry(header, image, options, scrub(href)))

    how = (options.geocoding, options.radiometry, options.noise, options.border)
    return _IMAGES.get((scrub(href), polarisation, how), make)


def _geometry(header: Header, image: Image, options: GrdOptions, name: str) -> Geometry:
    if options.geocoding != "gcp":
        return RangeDoppler(image.annotation)
    if header.points is None:
        raise GeolocationError(
            f"{name} has no ground control points: take the product as published, or geocoding='terrain' or 'ellipsoid'"
        )
    return GcpGeometry(header.points)


def read_power(src: Any, loaded: Loaded, geobox: GeoBox, options: GrdOptions, took: Took | None = None) -> Values:
    """Return linear backscatter of one image on a block of the map.

    Parameters
    ----------
    src
        The open raster.
    loaded
        Its annotation and geometry.
    geobox
        The block.
    options
        See `GrdOptions`.
    took
        Is told which windows of the raster were read.

    Returns
    -------
    numpy.ndarray
        `(y, x)` float32; NaN where the image observed nothing, negative where the signal is below the noise.
    """
    heights = block_heights(geobox, loaded.geometry, options.dem, options.height)
    lines, pixels = place(geobox, loaded.geometry, heights)
    out = resample(
        lines,
        pixels,
        loaded.header.shape,
        lambda rows, columns: _window(src, loaded.image, rows, columns, options, took),
        looks=_looks(geobox, loaded.image),
    )
    if options.layover_shadow == "nodata" and np.isfinite(out).any():
        assert isinstance(loaded.geometry, RangeDoppler)
        assert options.dem is not None
        out[block_relief(geobox, loaded.geometry, options.dem).mask > 0] = np.nan
    return out


def resample(
    lines: NDArray[np.float64],
    pixels: NDArray[np.float64],
    shape: tuple[int, int],
    read: Callable[[slice, slice], Values],
    *,
    looks: tuple[int, int],
) -> Values:
    """Return the values of an image at fractional lines and pixels, averaged first where the map is coarser.

    Parameters
    ----------
    lines, pixels
        `(y, x)` image coordinates of each pixel of the map.
    shape
        Lines and samples of the image.
    read
        Returns a window of the image as float32, NaN where nothing was observed.
    looks
        Lines and pixels that are averaged.
    """
    window = footprint(lines, pixels, shape, looks)
    if window is None:
        return np.full(lines.shape, np.nan, np.float32)
    sampler = Sampler(window, looks, shape)
    for strip in sampler.strips():
        sampler.add(strip, read(*strip))
    return sampler.at(lines, pixels)


def _looks(geobox: GeoBox, image: Image) -> tuple[int, int]:
    """Return how many lines and pixels of the image fit into a pixel of the map, each at least 1.

    By the sizes that grid and product name: what is measured in a block would differ from block to block where it is
    close to a half or to a whole number, and so would the speckle.
    """
    along, across = (max(1, round(abs(geobox.transform.a) / size)) for size in image.annotation.spacing)
    return along, across


def _window(src: Any, image: Image, rows: slice, columns: slice, options: GrdOptions, took: Took | None) -> Values:
    """Return calibrated power in a window of the image; NaN beyond the recorded swath.

    A border is followed from the edges of the image, so that the numbers are read up to an edge that is near.
    """
    wide = (rows, columns)
    if options.border:
        wide = (_towards_edges(rows, src.height), _towards_edges(columns, src.width))
    numbers = src.read(1, window=Window.from_slices(*wide))
    if took is not None:
        took(src, *wide)
    inner = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip((rows, columns), wide, strict=True))
    lines, pixels = _centres(rows), _centres(columns)
    gain = image.calibration.table.window(lines, pixels)
    noise = image.noise.table.window(lines, pixels) if image.noise else None
    power = calibrated(numbers[inner], gain, noise)
    edges = borders.Edges(wide[0].start == 0, wide[0].stop == src.height, wide[1].start == 0, wide[1].stop == src.width)
    if options.border and edges != borders.Edges():
        power[_border(image, numbers, wide, edges)[inner]] = np.nan
    return power


def _border(
    image: Image, numbers: NDArray[np.uint16], wide: tuple[slice, slice], edges: borders.Edges
) -> NDArray[np.bool_]:
    """Return what lies beyond the recorded swath."""
    if not image.bordered:
        return borders.beyond(borders.empty(numbers), edges)
    assert image.border_noise is not None
    noise = image.border_noise.table.window(_centres(wide[0]), _centres(wide[1]))
    return borders.grown(borders.beyond(borders.weak(numbers, noise), edges))


def _centres(part: slice) -> NDArray[np.float64]:
    return np.arange(part.start, part.stop, dtype=np.float64)


def _towards_edges(part: slice, size: int) -> slice:
    return slice(0 if part.start < BORDER else part.start, size if part.stop > size - BORDER else part.stop)


def open_image(href: str) -> Any:
    """Open a raster in radar geometry without the warning that it has no geotransform."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(href, driver="GTiff")


def read_block(
    rasters: Sequence[tuple[str, str]],
    polarisation: str,
    geobox: GeoBox,
    options: GrdOptions,
    fetch: Fetch,
    took: Took | None = None,
) -> Values:
    """Return backscatter in dB of the slices of one pass on a block of the map.

    Where slices overlap the first observation counts. Power of 0 or less, which the removal of noise leaves where the
    signal is weaker than it, becomes the feature's minimum: it is an observation, and never nodata.

    Parameters
    ----------
    rasters
        Address and address to open (it may carry a signature) of each slice.
    polarisation
        What they should hold.
    geobox
        The block.
    options, fetch
        See `load`.
    took
        See `read_power`.

    Returns
    -------
    numpy.ndarray
        `(y, x)` float32; NaN where nothing was observed.

    Raises
    ------
    AnnotationError, GeolocationError, ElevationError
        A slice or the elevation model cannot be used.
    OSError
        Something could not be read.
    """
    power = np.full(geobox.shape, np.nan, np.float32)
    for href, opened in rasters:
        with open_image(opened) as src:
            found = read_power(src, load(src, href, polarisation, options, fetch), geobox, options, took)
        power = np.where(np.isnan(power), found, power)
        if not np.isnan(power).any():
            break
    least = schema.feature("grd").minimum
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = np.where(power > 0, 10 * np.log10(power), np.float32(least))
    out: Values = np.where(np.isnan(power), np.float32(np.nan), np.maximum(decibel, least)).astype(np.float32)
    return out
