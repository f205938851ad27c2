"""A Sentinel-1 GRD product of known ground: orbit, terrain, backscatter, calibration and noise are all chosen.

The image is made the other way round than it is geocoded: for each of its pixels the point of the ground is sought that
has its distance, lies square to the platform's velocity and on the terrain. Nothing of `icemap_xr.grd` or of its
kernels is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint

from icemap_xr.grid import RegionGrid
from icemap_xr.testing.radar_xml import annotation_xml, calibration_xml, noise_xml

Floats = NDArray[np.float64]
Field = Callable[[Floats, Floats], Floats]

_EARTH_RATE, _GM = 7.292115e-5, 3.986004418e14
_A, _B = 6378137.0, 6356752.314245
_PRODUCT = "S1A_{mode}_GRD{resolution}_1SDV_{start:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}_{orbit:06d}_043ED0_8255"


def flat(x: Floats, y: Floats) -> Floats:
    """Return no terrain."""
    return np.zeros(np.shape(x))


@dataclass(frozen=True)
class RadarScene:
    """A simulated GRD scene.

    Parameters
    ----------
    crs
        Map in which terrain and backscatter are functions.
    terrain
        Metres above WGS 84 at map coordinates.
    backscatter
        sigma0 in linear power at map coordinates.
    shape, spacing
        Lines and samples; metres.
    latitude_argument, node
        Where the platform is on its orbit, degrees from the ascending node, and where that is. By default the image
        lies at 76.7 N, 15 E.
    incidence
        Degrees in the middle of the image.
    form
        ``"range and azimuth"`` or ``"range"`` noise; the latter is of processor version 2.84 with noisy borders.
    border
        Lines at the top and pixels at the left and right beyond the recorded swath.
    looks
        Looks of the speckle; 0 for none.
    seed
        Of speckle and borders.
    mode, polarisation
        What product and annotation say.
    interval
        Seconds between lines.
    cycle
        Cycles of 175 orbits, 12 days, after the first scene.
    offset
        Metres by which the ground lies off eastwards and northwards, as where a platform is geolocated differently.
    """

    crs: str = "EPSG:32633"
    terrain: Field = flat
    backscatter: Field = lambda x, y: np.full(np.shape(x), 0.1)
    shape: tuple[int, int] = (500, 700)
    spacing: float = 10.0
    latitude_argument: float = 77.0
    node: float = 30.7
    incidence: float = 38.0
    form: str = "range and azimuth"
    border: tuple[int, int, int] = (0, 0, 0)
    looks: int = 0
    seed: int = 0
    mode: str = "IW"
    polarisation: str = "VV"
    interval: float = field(default=1.5e-3)
    cycle: int = 0
    offset: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def states(self) -> tuple[Floats, Floats, Floats]:
        """Times, positions and velocities of the platform, earth-fixed, every 10 s."""
        times = np.arange(-65.0, 86.0, 10.0) + 0.5 * self.shape[0] * self.interval
        return times, *self._platform(times)

    def _platform(self, times: Floats) -> tuple[Floats, Floats]:
        """Return positions and velocities on a circular orbit at an inclination of 98.18 degrees."""
        radius, tilt = 7.071e6, np.radians(98.18)
        rate = np.sqrt(_GM / radius**3)
        u = np.radians(self.latitude_argument) + rate * (times - 0.5 * self.shape[0] * self.interval)
        along = np.stack([np.cos(u), np.sin(u) * np.cos(tilt), np.sin(u) * np.sin(tilt)], -1)
        ahead = np.stack([-np.sin(u), np.cos(u) * np.cos(tilt), np.cos(u) * np.sin(tilt)], -1)
        # the node turns with the seconds, for the earth does
        turn = np.radians(self.node) - _EARTH_RATE * times
        position = _turned(radius * along, turn)
        velocity = _turned(radius * rate * ahead, turn) - _EARTH_RATE * np.stack(
            [-position[..., 1], position[..., 0], np.zeros_like(times)], -1
        )
        return position, velocity

    @cached_property
    def ground_range(self) -> tuple[Floats, Floats]:
        """Times and coefficients of the polynomials from ground range to slant range, every second."""
        times = np.arange(-2.0, self.shape[0] * self.interval + 3.0)
        position, _ = self._platform(times)
        # on a sphere through the ground below, which differs from second to second
        below = np.linalg.norm(position, axis=-1) - self._altitude(position)
        away = np.linspace(0.0, self.shape[1] * self.spacing, 60)
        look = np.radians(self.incidence)
        rows = []
        for sphere, platform in zip(below, np.linalg.norm(position, axis=-1), strict=True):
            middle = look - np.arcsin(sphere / platform * np.sin(look))
            angle = middle + (away - 0.5 * away[-1]) / sphere
            slant = np.sqrt(sphere**2 + platform**2 - 2 * sphere * platform * np.cos(angle))
            scale = away[-1]
            rows.append(np.polynomial.polynomial.polyfit(away / scale, slant, 6) / scale ** np.arange(7))
        return times, np.array(rows)

    def _altitude(self, position: Floats) -> Floats:
        back = pyproj.Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)
        _, _, height = back.transform(position[:, 0], position[:, 1], position[:, 2])
        return np.asarray(height)

    def delay(self, pixels: Floats) -> Floats:
        """Return how many lines a target lies after its zero-Doppler time: the processor's timing depends on range."""
        return 0.15 - 0.3 * pixels / (self.shape[1] - 1)

    def zero_doppler_times(self, lines: Floats, pixels: Floats) -> Floats:
        """Return seconds since the first line."""
        return (lines - self.delay(pixels)) * self.interval

    def ground(self, lines: Floats, pixels: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return map coordinates x, y, the height, longitude and latitude of what the image shows at lines and pixels.

        Valid without layover: the terrain is met once.
        """
        shape = np.broadcast(lines, pixels).shape
        lines, pixels = (np.broadcast_to(one, shape).ravel() for one in (lines, pixels))
        times = self.zero_doppler_times(lines, pixels)
        position, velocity = self._platform(times)
        slant = self._slant(times, pixels * self.spacing)
        to_geodetic = pyproj.Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)
        to_map = pyproj.Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        point = _first_guess(position, velocity, slant)
        height = np.zeros(lines.size)
        for round_ in range(40):
            point = _intersect(point, position, velocity, slant, height, steps=3 if round_ else 8)
            lon, lat, is_at = (np.asarray(one) for one in to_geodetic.transform(*point.T))
            x, y = (np.asarray(one) for one in to_map.transform(lon, lat))
            wanted = self.terrain(x, y)
            # an ellipsoid with longer axes is no surface of one height: what it misses is added
            change = wanted - is_at
            height = height + change
            if np.abs(change).max() < 1e-3:
                break
        else:
            raise ValueError("the terrain is too steep: the radar meets it more than once")
        return tuple(one.reshape(shape) for one in (x, y, wanted, lon, lat))  # type: ignore[return-value]

    def _slant(self, times: Floats, ground: Floats) -> Floats:
        at, rows = self.ground_range
        whole = np.floor(times - at[0]).astype(int)
        share = times - at[whole]
        # the polynomials are a second apart
        before, after = (np.polynomial.polynomial.polyval(ground, rows[whole + k].T, tensor=False) for k in (0, 1))
        return (1 - share) * before + share * after

    @cached_property
    def grid(self) -> tuple[Floats, Floats]:
        """Lines and pixels of the image, `(line, pixel)`."""
        lines, pixels = np.meshgrid(*(np.arange(n, dtype=float) for n in self.shape), indexing="ij")
        return lines, pixels

    @cached_property
    def truth(self) -> tuple[Floats, Floats, Floats]:
        """Map coordinates and height of each pixel's ground."""
        return self.ground(*self.grid)[:3]

    def gain(self, lines: Floats, pixels: Floats) -> Floats:
        """Return the sigma0 calibration at image coordinates; linear between the annotated points."""
        return 640.0 - 110.0 * (pixels / self.shape[1]) + 8.0 * (lines / self.shape[0])

    def noise(self, lines: Floats, pixels: Floats) -> Floats:
        """Return the noise in squared numbers at image coordinates."""
        along = 900.0 - 400.0 * (pixels / self.shape[1]) + 60.0 * (lines / self.shape[0])
        if self.form == "range":
            return along
        # two swaths, each with its own factor
        left = 1.1 - 0.1 * lines / (self.shape[0] - 1)
        right = 1.0 + 0.2 * lines / (self.shape[0] - 1)
        return along * np.where(pixels < self.swath_border, left, right)

    @property
    def swath_border(self) -> int:
        """First pixel of the second swath."""
        return self.shape[1] // 3

    @cached_property
    def numbers(self) -> NDArray[np.uint16]:
        """Digital numbers of the image."""
        lines, pixels = self.grid
        x, y, _ = self.truth
        power = self.backscatter(x - self.offset[0], y - self.offset[1]) * self.gain(lines, pixels) ** 2 + self.noise(
            lines, pixels
        )
        rng = np.random.default_rng(self.seed)
        if self.looks:
            power = power * rng.gamma(self.looks, 1 / self.looks, power.shape)
        numbers = np.clip(np.round(np.sqrt(power)), 0, 65535)
        top, left, right = self.border
        beyond = (lines < top) | (pixels < left) | (pixels >= self.shape[1] - right)
        weak = rng.integers(0, 6, power.shape) if self.form == "range" else 0
        return np.where(beyond, weak, numbers).astype(np.uint16)

    @cached_property
    def tie_points(self) -> dict[str, Floats]:
        """The annotated grid: line, pixel, lon, lat, height and zero-Doppler time."""
        lines, pixels = np.meshgrid(
            np.round(np.linspace(0, self.shape[0] - 1, 8)),
            np.round(np.linspace(0, self.shape[1] - 1, 11)),
            indexing="ij",
        )
        _, _, height, lon, lat = self.ground(lines, pixels)
        times = self.zero_doppler_times(lines, pixels)
        found = {"line": lines, "pixel": pixels, "lon": lon, "lat": lat, "height": height, "time": times}
        return {name: one.ravel() for name, one in found.items()}

    @property
    def product(self) -> str:
        """Name of the product."""
        start = self.start.astype("M8[s]").item()
        resolution = "H" if self.mode == "IW" else "M"
        return _PRODUCT.format(
            mode=self.mode, resolution=resolution, start=start, stop=start + timedelta(seconds=25), orbit=self.orbit
        )

    @property
    def start(self) -> np.datetime64:
        """UTC time of the first line."""
        first = np.datetime64(f"{2017 if self.form == 'range' else 2021}-01-19T03:16:53", "ns")
        return first + self.cycle * np.timedelta64(12, "D")

    @property
    def orbit(self) -> int:
        """Absolute orbit."""
        return 36201 + 175 * self.cycle

    def write(self, folder: Path) -> Path:
        """Write a product of the SAFE format and return the path of its raster."""
        name = f"s1a-{self.mode.lower()}-grd-{self.polarisation.lower()}-{self.orbit:06d}-043ed0-001"
        safe = folder / f"{self.product}.SAFE"
        (safe / "measurement").mkdir(parents=True)
        (safe / "annotation" / "calibration").mkdir(parents=True)
        (safe / "annotation" / f"{name}.xml").write_text(annotation_xml(self))
        (safe / "annotation" / "calibration" / f"calibration-{name}.xml").write_text(calibration_xml(self))
        (safe / "annotation" / "calibration" / f"noise-{name}.xml").write_text(noise_xml(self))
        path = safe / "measurement" / f"{name}.tiff"
        write_measurement(path, self.numbers, self.tie_points, version="002.84" if self.form == "range" else "003.31")
        return path


def write_measurement(
    path: Path, numbers: NDArray[np.uint16], points: dict[str, Floats] | None, *, version: str, crs: str = "EPSG:4326"
) -> Path:
    """Write digital numbers with ground control points, as the processor does."""
    found = []
    if points is not None:
        rows = zip(*(points[key] for key in ("line", "pixel", "lon", "lat", "height")), strict=True)
        found = [GroundControlPoint(row=r, col=c, x=x, y=y, z=z) for r, c, x, y, z in rows]
    options = {"driver": "GTiff", "dtype": "uint16", "count": 1, "tiled": True, "blockxsize": 256, "blockysize": 256}
    options |= {"height": numbers.shape[0], "width": numbers.shape[1], "compress": "deflate"}
    with rasterio.open(path, "w", **options) as out:
        if found:
            out.gcps = (found, rasterio.crs.CRS.from_user_input(crs))
        out.update_tags(TIFFTAG_SOFTWARE=f"Sentinel-1 IPF {version}")
        out.write(numbers, 1)
    return path


def _turned(vectors: Floats, angle: Floats) -> Floats:
    """Turn vectors around the earth's axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], -1)


def _first_guess(position: Floats, velocity: Floats, slant: Floats) -> Floats:
    """Return points to the right of the track about as far away as wanted."""
    down = -position / np.linalg.norm(position, axis=-1, keepdims=True)
    right = np.cross(velocity, position)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    altitude = np.linalg.norm(position, axis=-1) - 6.36e6
    cosine = np.clip(altitude / slant, 0.1, 0.99)[:, None]
    return position + slant[:, None] * (cosine * down + np.sqrt(1 - cosine**2) * right)


def _intersect(point: Floats, position: Floats, velocity: Floats, slant: Floats, height: Floats, steps: int) -> Floats:
    """Return where sphere of distance, plane square to the velocity and ellipsoid at a height meet (Newton)."""
    axes = np.stack([_A + height, _A + height, _B + height], -1)
    for _ in range(steps):
        line = point - position
        values = np.stack(
            [
                ((line**2).sum(-1) - slant**2) / slant**2,
                (line * velocity).sum(-1) / (slant * 7.5e3),
                ((point / axes) ** 2).sum(-1) - 1,
            ],
            -1,
        )
        rows = np.stack(
            [2 * line / slant[:, None] ** 2, velocity / (slant[:, None] * 7.5e3), 2 * point / axes**2], axis=-2
        )
        point = point - np.linalg.solve(rows, values[..., None])[..., 0]
    return point


def wavy_terrain(x: Floats, y: Floats) -> Floats:
    """Return hills of 150 to 650 m with slopes up to 16 degrees."""
    return 400 + 250 * np.sin(x / 900) * np.cos(y / 1100)


def wavy_backscatter(x: Floats, y: Floats) -> Floats:
    """Return sigma0 of -12 to -4 dB with waves about 1 km long."""
    return 10 ** ((-8 + 4 * np.sin(x / 150) * np.sin(y / 170)) / 10)


def write_dem(path: Path, scene: RadarScene, *, margin: float, pixel: float = 20.0, lift: float = 0.0) -> Path:
    """Write the terrain of a scene as a raster in its map, heights above the ellipsoid plus `lift`."""
    x, y, _ = replace(scene, terrain=flat).truth
    left, top = np.floor(x.min() / 100) * 100 - margin, np.ceil(y.max() / 100) * 100 + margin
    width, height = int((x.max() - left + margin) / pixel), int((top - y.min() + margin) / pixel)
    xx, yy = np.meshgrid(left + (np.arange(width) + 0.5) * pixel, top - (np.arange(height) + 0.5) * pixel)
    options = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": height, "width": width, "nodata": -9999.0}
    transform = rasterio.transform.from_origin(left, top, pixel, pixel)
    with rasterio.open(path, "w", crs=scene.crs, transform=transform, **options) as out:
        out.write((scene.terrain(xx, yy) + lift).astype(np.float32), 1)
    return path


def map_of(scene: RadarScene, shape: tuple[int, int] = (300, 400), pixel: float = 10.0) -> RegionGrid:
    """Return a grid around the middle of a scene."""
    x, y = (float(one.mean()) for one in scene.truth[:2])
    left, top = (round(place / pixel) * pixel for place in (x - shape[1] * pixel / 2, y + shape[0] * pixel / 2))
    return RegionGrid(GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, top), scene.crs))


def centres(grid: RegionGrid) -> tuple[Floats, Floats]:
    """Return map coordinates `(y, x)` of a grid's pixel centres."""
    coordinates = grid.geobox.coordinates
    x, y = np.meshgrid(coordinates["x"].values, coordinates["y"].values)
    return x, y
