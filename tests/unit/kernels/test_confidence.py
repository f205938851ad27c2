"""Shannon confidence against the formula written out."""

import math

import numpy as np
import pytest

from icemap_xr.kernels.confidence import shannon_confidence


@pytest.mark.parametrize("p", [0.0, 1e-7, 0.1, 0.25, 0.5, 0.75, 0.999, 1.0])
def test_equals_the_formula(p: float) -> None:
    q = min(max(p, 1e-6), 1 - 1e-6)
    expected = 1 + q * math.log2(q) + (1 - q) * math.log2(1 - q)
    assert shannon_confidence(p) == pytest.approx(expected, abs=1e-12)


def test_is_symmetric_and_least_at_one_half() -> None:
    p = np.linspace(0, 1, 101)
    confidence = shannon_confidence(p)
    np.testing.assert_allclose(confidence, confidence[::-1], atol=1e-12)
    assert confidence.argmin() == 50
    assert confidence[50] == pytest.approx(0, abs=1e-12)
    assert confidence.min() >= 0
    assert confidence.max() <= 1


def test_dtypes_and_nan() -> None:
    values = np.array([[np.nan, 1.0, 0.5]])
    for given, got in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        confidence = shannon_confidence(values.astype(given))
        assert confidence.dtype == got
        assert confidence.shape == (1, 3)
        assert np.isnan(confidence[0, 0])
        assert np.isfinite(confidence[0, 1:]).all()
    assert shannon_confidence(np.array([0, 1])).dtype == np.float64
