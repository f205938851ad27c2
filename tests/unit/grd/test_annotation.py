"""Calibration and noise are compared with values worked out by hand from the real files."""

from pathlib import Path

import numpy as np
import pytest

from icemap_xr.errors import AnnotationError
from icemap_xr.grd.annotation import check_extent, read_annotation, read_calibration, read_noise
from icemap_xr.kernels.lut import calibrated


def snippet(sentinel1: Path, name: str) -> bytes:
    return (sentinel1 / "lut_snippets" / name).read_bytes()


def at(table: object, line: float, pixel: float) -> float:
    return float(table.window(np.array([line]), np.array([pixel])).item())  # type: ignore[attr-defined]


def test_sigma0_of_a_real_table(sentinel1: Path) -> None:
    table = read_calibration(snippet(sentinel1, "calibration_ipf290.xml"), "c").table
    # annotated: line 0, pixels 0 and 1560
    assert at(table, 0, 0) == pytest.approx(632.8027, abs=1e-4)
    assert at(table, 0, 1560) == pytest.approx(622.8287, abs=1e-4)
    # halfway along range: (632.8027 + 622.8287) / 2; all lines of this table are alike
    assert at(table, 0, 780) == pytest.approx(627.8157, abs=1e-4)
    assert at(table, 2662, 780) == pytest.approx(627.8157, abs=1e-4)
    # DN 100: 10000 / 632.8027 ** 2 = 0.0249724, -16.0254 dB
    power = calibrated(np.array([[100]], np.uint16), table.window(np.array([0.0]), np.array([0.0])), None).item()
    assert power == pytest.approx(0.0249724, rel=1e-5)
    assert 10 * np.log10(power) == pytest.approx(-16.0254, abs=1e-3)


def test_gamma0_and_beta0_of_a_real_table(sentinel1: Path) -> None:
    content = snippet(sentinel1, "calibration_legacy.xml")
    assert at(read_calibration(content, "c", "gamma0").table, 0, 0) == pytest.approx(612.9128, abs=1e-4)
    assert at(read_calibration(content, "c", "beta0").table, 9000, 20000) == pytest.approx(474.0)


def test_noise_along_range_alone(sentinel1: Path) -> None:
    noise = read_noise(snippet(sentinel1, "noise_legacy.xml"), "n")
    assert noise.form == "range"
    assert noise.table.factors == ()
    assert at(noise.table, 0, 1560) == pytest.approx(1199.401)
    # line 0: pixel 780 is halfway from 1606.331 to 1199.401, 1402.866; line 4697: from 1591.548 to 1187.482, 1389.515;
    # line 1174.25 is a quarter of the way: 1402.866 - 0.25 * 13.351
    assert at(noise.table, 1174.25, 780) == pytest.approx(1399.52825, abs=1e-3)
    # the vectors have other pixels in each line: at line 4697, pixel 9313 has 769.3961
    assert at(noise.table, 4697, 9313) == pytest.approx(769.3961, abs=1e-3)
    # and line 0 there lies 1 of 1560 pixels from 779.9833 to 556.4640
    assert at(noise.table, 0, 9313) == pytest.approx(779.9833 - 223.5193 / 1560, abs=1e-3)


def test_noise_along_range_and_azimuth(sentinel1: Path) -> None:
    noise = read_noise(snippet(sentinel1, "noise_ipf290.xml"), "n")
    assert noise.form == "range and azimuth"
    assert len(noise.table.factors) == 5
    # line 0 of IW1: 835.1952 * 1.095119
    assert at(noise.table, 0, 1600) == pytest.approx(835.1952 * 1.095119, rel=1e-6)
    # line 1265 is halfway from line 0 (1.095119) to 2530 (1.014538), 1.0548285; and 1265 of 5328 from 835.1952 to
    # 837.2875 along range
    expected = (835.1952 + 1265 / 5328 * (837.2875 - 835.1952)) * 1.0548285
    assert at(noise.table, 1265, 1600) == pytest.approx(expected, rel=1e-6)
    # pixels 8751 and 8752 lie in two swaths with factors 1.095119 and 1.004019 in line 0; along range from 754.9489 at
    # 8000 to 533.4625 at 9552
    for pixel, factor in ((8751, 1.095119), (8752, 1.004019)):
        along = 754.9489 + (pixel - 8000) / 1552 * (533.4625 - 754.9489)
        assert at(noise.table, 0, pixel) == pytest.approx(along * factor, rel=1e-6)
    # in line 20310 IW1 has ended, so nothing is multiplied there; IW2 goes on in its second rectangle
    last = 1197.468
    assert at(noise.table, 20310, 0) == pytest.approx(last, rel=1e-6)


def test_identity_is_read(sentinel1: Path) -> None:
    one = read_noise(snippet(sentinel1, "noise_ipf290.xml"), "n").identity
    assert (one.mission, one.mode, one.polarisation, one.orbit, one.take) == ("S1C", "IW", "VH", 8745, 70990)
    assert one.start == np.datetime64("2026-07-28T15:10:18.530797", "ns")


def test_annotation_of_the_polar_product(polar: Path) -> None:
    one = read_annotation((polar / "ew-hh.xml").read_bytes(), "ew-hh.xml")
    assert (one.lines, one.samples, one.spacing) == (10708, 10487, (40.0, 40.0))
    assert one.points.line.size == 483
    assert one.orbit.times.size == 20
    assert one.ground_range.coefficients.shape == (66, 9)
    assert not one.denoised
    # the last line is annotated 64.292453 s after the first
    assert (one.lines - 1) * one.interval == pytest.approx(64.292453, abs=1e-5)
    calibration = read_calibration((polar / "calibration" / "calibration-ew-hh.xml").read_bytes(), "c")
    noise = read_noise((polar / "calibration" / "noise-ew-hh.xml").read_bytes(), "n")
    assert calibration.identity == noise.identity == one.identity
    # line 0, pixel 0: 38871.13 along range, 1.267256 along azimuth
    assert at(noise.table, 0, 0) == pytest.approx(38871.13 * 1.267256, rel=1e-6)
    # real tables end one or two spacings beyond the image
    for table in (calibration.table, noise.table.vectors):
        check_extent(table, one.lines, one.samples, "t")


def test_a_table_far_beyond_the_image_is_refused(polar: Path) -> None:
    noise = read_noise((polar / "calibration" / "noise-ew-hh.xml").read_bytes(), "n")
    with pytest.raises(AnnotationError, match="reaches to line 10707 and pixel 10486, the image has 5000 x 10487"):
        check_extent(noise.table.vectors, 5000, 10487, "noise.xml")
    with pytest.raises(AnnotationError, match="the image was cut or resampled"):
        check_extent(noise.table.vectors, 10708, 5000, "noise.xml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("<mode>IW</mode>", "<mode>S3</mode>", "of mode S3: allowed are IW and EW"),
        ("<mode>IW</mode>", "<mode>WV</mode>", "of mode WV"),
        ("<productType>GRD</productType>", "<productType>SLC</productType>", "of a SLC product"),
        ("<line>0</line>", "<line>9999</line>", "out of order"),
        ("1.178921e+03", "-1.0", "negative noiseRangeLut"),
        ("1.178921e+03 ", "", "16 numbers|15 numbers"),
        ("noiseRangeVectorList", "somethingElse", "no vectors of noiseRangeLut"),
        ("<lastRangeSample>8751</lastRangeSample>", "", "no lastRangeSample"),
        ("<firstAzimuthLine>0</firstAzimuthLine>", "<firstAzimuthLine>99999</firstAzimuthLine>", "out of order"),
    ],
)
def test_damaged_noise_is_an_error(sentinel1: Path, old: str, new: str, told: str) -> None:
    text = snippet(sentinel1, "noise_ipf290.xml").decode()
    assert old in text
    with pytest.raises(AnnotationError, match=told):
        read_noise(text.replace(old, new).encode(), "noise.xml")


def test_a_calibration_of_zero_is_an_error(sentinel1: Path) -> None:
    text = snippet(sentinel1, "calibration_ipf290.xml").decode()
    with pytest.raises(AnnotationError, match="sigmaNought of 0 or less"):
        read_calibration(text.replace("6.328027e+02", "0.0").encode(), "c")


def test_one_kind_of_file_is_not_taken_for_another(sentinel1: Path) -> None:
    with pytest.raises(AnnotationError, match="is a 'noise' document, wanted is 'calibration'"):
        read_calibration(snippet(sentinel1, "noise_ipf290.xml"), "c")
