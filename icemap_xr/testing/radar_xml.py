"""The annotation files of a simulated product, in the form of the published ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from icemap_xr.testing.radar import RadarScene


def _moment(scene: RadarScene, seconds: float) -> str:
    return str(scene.start + np.timedelta64(round(seconds * 1e9), "ns"))


def _header(scene: RadarScene) -> str:
    return (
        f"<adsHeader><missionId>S1A</missionId><productType>GRD</productType><polarisation>{scene.polarisation}"
        f"</polarisation><mode>{scene.mode}</mode><swath>{scene.mode}</swath>"
        f"<startTime>{_moment(scene, 0)}</startTime>"
        f"<stopTime>{_moment(scene, scene.shape[0] * scene.interval)}</stopTime>"
        f"<absoluteOrbitNumber>{scene.orbit}</absoluteOrbitNumber><missionDataTakeId>278224</missionDataTakeId>"
        "<imageNumber>001</imageNumber></adsHeader>"
    )


def _list(name: str, items: Iterable[str]) -> str:
    found = list(items)
    return f'<{name} count="{len(found)}">{"".join(found)}</{name}>'


def _numbers(name: str, values: Any, form: str = ".9e") -> str:
    return f'<{name} count="{len(values)}">{" ".join(format(float(v), form) for v in values)}</{name}>'


def _whole(name: str, values: Any) -> str:
    return f'<{name} count="{len(values)}">{" ".join(str(round(v)) for v in values)}</{name}>'


def annotation_xml(scene: RadarScene) -> str:
    """Return the product annotation."""
    orbit = _list("orbitList", (_state(scene, *one) for one in zip(*scene.states, strict=True)))
    times, rows = scene.ground_range
    conversions = _list(
        "coordinateConversionList",
        (
            f"<coordinateConversion><azimuthTime>{_moment(scene, t)}</azimuthTime><slantRangeTime>0</slantRangeTime>"
            f"<sr0>{row[0]:.9e}</sr0><gr0>0.0</gr0>{_numbers('grsrCoefficients', row, '.15e')}</coordinateConversion>"
            for t, row in zip(times, rows, strict=True)
        ),
    )
    points = scene.tie_points
    grid = _list(
        "geolocationGridPointList",
        (
            f"<geolocationGridPoint><azimuthTime>{_moment(scene, t)}</azimuthTime><line>{line:.0f}</line>"
            f"<pixel>{pixel:.0f}</pixel><latitude>{lat:.15e}</latitude><longitude>{lon:.15e}</longitude>"
            f"<height>{height:.9e}</height></geolocationGridPoint>"
            for t, line, pixel, lat, lon, height in zip(
                *(points[key] for key in ("time", "line", "pixel", "lat", "lon", "height")), strict=True
            )
        ),
    )
    return (
        f"<?xml version='1.0' encoding='UTF-8'?><product>{_header(scene)}"
        f"<generalAnnotation>{orbit}</generalAnnotation>"
        f"<imageAnnotation><imageInformation><productFirstLineUtcTime>{_moment(scene, 0)}</productFirstLineUtcTime>"
        f"<rangePixelSpacing>{scene.spacing}</rangePixelSpacing>"
        f"<azimuthPixelSpacing>{scene.spacing}</azimuthPixelSpacing>"
        f"<azimuthTimeInterval>{scene.interval!r}</azimuthTimeInterval>"
        f"<numberOfSamples>{scene.shape[1]}</numberOfSamples><numberOfLines>{scene.shape[0]}</numberOfLines>"
        "</imageInformation><processingInformation><thermalNoiseCorrectionPerformed>false"
        "</thermalNoiseCorrectionPerformed></processingInformation></imageAnnotation>"
        f"<coordinateConversion>{conversions}</coordinateConversion>"
        f"<geolocationGrid>{grid}</geolocationGrid></product>"
    )


def _state(scene: RadarScene, time: float, position: Any, velocity: Any) -> str:
    parts = []
    for name, vector in (("position", position), ("velocity", velocity)):
        inner = "".join(f"<{axis}>{value:.12e}</{axis}>" for axis, value in zip("xyz", vector, strict=True))
        parts.append(f"<{name}>{inner}</{name}>")
    return f"<orbit><time>{_moment(scene, time)}</time><frame>Earth Fixed</frame>{''.join(parts)}</orbit>"


def _profile(scene: RadarScene) -> tuple[Any, Any]:
    """Return annotated lines, the last beyond the image as in real products, and pixels."""
    lines = np.arange(0, scene.shape[0] + 199, 200)
    pixels = np.unique(np.append(np.arange(0, scene.shape[1], 40), scene.shape[1] - 1))
    return lines, pixels


def calibration_xml(scene: RadarScene) -> str:
    """Return the calibration table."""
    lines, pixels = _profile(scene)
    vectors = []
    for line in lines:
        gain = scene.gain(np.full(pixels.size, float(line)), pixels.astype(float))
        vectors.append(
            f"<calibrationVector><azimuthTime>{_moment(scene, line * scene.interval)}</azimuthTime><line>{line}</line>"
            f"{_whole('pixel', pixels)}{_numbers('sigmaNought', gain)}{_numbers('betaNought', 0.8 * gain)}"
            f"{_numbers('gamma', 0.9 * gain)}</calibrationVector>"
        )
    return (
        f"<?xml version='1.0' encoding='UTF-8'?><calibration>{_header(scene)}"
        f"{_list('calibrationVectorList', vectors)}</calibration>"
    )


def noise_xml(scene: RadarScene) -> str:
    """Return the noise table of the scene's form."""
    old = scene.form == "range"
    lines, pixels = _profile(scene)
    name, key = ("noiseVector", "noiseLut") if old else ("noiseRangeVector", "noiseRangeLut")
    vectors = []
    for line in lines:
        along = 900.0 - 400.0 * (pixels / scene.shape[1]) + 60.0 * (line / scene.shape[0])
        vectors.append(
            f"<{name}><azimuthTime>{_moment(scene, line * scene.interval)}</azimuthTime><line>{line}</line>"
            f"{_whole('pixel', pixels)}{_numbers(key, along)}</{name}>"
        )
    body = _list(f"{name}List", vectors)
    if not old:
        last, edge = scene.shape[0] - 1, scene.swath_border
        swaths = ((0, edge - 1, (1.1, 1.0)), (edge, scene.shape[1] - 1, (1.0, 1.2)))
        body += _list(
            "noiseAzimuthVectorList",
            (
                f"<noiseAzimuthVector><swath>IW{i}</swath><firstAzimuthLine>0</firstAzimuthLine>"
                f"<firstRangeSample>{first}</firstRangeSample><lastAzimuthLine>{last}</lastAzimuthLine>"
                f"<lastRangeSample>{stop}</lastRangeSample>{_whole('line', (0, last))}"
                f"{_numbers('noiseAzimuthLut', factors)}</noiseAzimuthVector>"
                for i, (first, stop, factors) in enumerate(swaths, start=1)
            ),
        )
    return f"<?xml version='1.0' encoding='UTF-8'?><noise>{_header(scene)}{body}</noise>"
