"""The published calibration is read from its pickle as data; nothing in a file is ever executed."""

import io
import pickle
import pickletools
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icemap_xr.errors import InputError, UnsafeFileError
from icemap_xr.kernels.confidence import shannon_confidence
from icemap_xr.sklearn_file import read_kernel_ridge


def model(**options: Any) -> Any:
    from sklearn.kernel_ridge import KernelRidge

    x = np.array([0, 0.004, 0.11, 0.3, 0.52, 1])
    y = np.array([0, 0.55, 0.9, 1, 0.99, 1])
    options = {"kernel": "laplacian", "alpha": np.array([0, 0.01, 0.003, 0.002, 0.001, 0]), **options}
    return KernelRidge(**options).fit(x[:, None], y)


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "calibrator.pickle"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["plain", "optimised", "fortran", "gamma"])
def test_every_protocol_gives_the_regression(tmp_path: Path, protocol: int, form: str) -> None:
    ridge = model(gamma=np.float64(1.0) if form == "gamma" else None)
    if form == "fortran":
        ridge.X_fit_ = np.asfortranarray(ridge.X_fit_)
        ridge.dual_coef_ = ridge.dual_coef_.astype(">f8")
    content = pickle.dumps(ridge, protocol)
    curve = read_kernel_ridge(written(tmp_path, pickletools.optimize(content) if form == "optimised" else content))
    p = np.random.default_rng(0).random(2000)
    c = np.clip(ridge.predict(shannon_confidence(p)[:, None]), 0, 1)
    np.testing.assert_allclose(curve(p), np.where(p >= 0.5, c, 1 - c), atol=1e-6)
    assert curve.name == "calibrator"


def test_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    content = pickle.dumps(model(), 2).replace(b"numpy._core.", b"numpy.core.")
    assert len(read_kernel_ridge(written(tmp_path, content)).x) == 6


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> Any:
        return self.how


def inside(payload: Any) -> Any:
    """A regression with something else inside."""
    ridge = model()
    ridge.coef0 = payload
    return ridge


def attacks(marker: Path) -> dict[str, bytes]:
    """Files that would create `marker` if anything of them ran."""
    code = f"open({str(marker)!r}, 'w')"
    calls = {
        "eval": Calls(eval, code),
        "open": Calls(open, str(marker), "w"),
        "inside": inside(Calls(exec, code)),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "load": inside(Calls(np.load, str(marker))),
        "path": Calls(Path.touch, marker),
    }
    found = {f"{name}-{n}": pickle.dumps(one, n) for name, one in calls.items() for n in (0, 2, 4)}
    text = code.encode()
    unicode = b"X" + struct.pack("<I", len(text)) + text
    found["global"] = b"cbuiltins\neval\n(" + unicode + b"tR."
    found["inst"] = b"(" + unicode + b"ibuiltins\neval\n."
    found["obj"] = b"(cbuiltins\neval\n" + unicode + b"o."
    found["extension"] = b"\x80\x02\x82\x01."
    found["persistent"] = b"Pabc\n."
    found["persistent binary"] = b"\x80\x02" + unicode + b"Q."
    found["newobj ex"] = b"\x80\x04cbuiltins\neval\n)}\x92."
    found["buffer"] = b"\x80\x05\x97."
    # a known name, with a dotted path to another behind it
    found["dotted"] = b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile0\x93."
    # calling what an allowed call made, instead of a name
    found["made"] = b"\x80\x02cnumpy\nndarray\n)R)R."
    found["state"] = b"\x80\x02}}b."
    found["fills"] = b"\x80\x02K\x01K\x02K\x03s."
    return found


NAMES = sorted(attacks(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_malicious_files_are_refused_and_nothing_runs(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(UnsafeFileError, match="do not unpickle it"):
        read_kernel_ridge(written(tmp_path, attacks(marker)[name]))
    assert not marker.exists()


def test_one_of_the_attacks_is_real(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(attacks(marker)["eval-4"]).close()
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_files_are_refused(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(model(), protocol)
    for cut in range(0, len(content), 7):
        with pytest.raises(InputError):
            read_kernel_ridge(written(tmp_path, content[:cut]))
    rng = np.random.default_rng(protocol)
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.integers(len(changed))] = rng.integers(256)
        with suppress(InputError):  # a changed number may also go unseen
            read_kernel_ridge(written(tmp_path, bytes(changed)))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"kernel": "rbf"}, "rbf"),
        ({"gamma": 2.0}, r"gamma 2\.0"),
    ],
)
def test_other_regressions_are_refused(tmp_path: Path, other: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_kernel_ridge(written(tmp_path, pickle.dumps(model(**other))))


def test_what_is_no_regression_is_refused(tmp_path: Path) -> None:
    wrong: Any
    for wrong in ({"dual_coef_": [1]}, [1, 2], 3.0):
        with pytest.raises(InputError, match="no kernel ridge"):
            read_kernel_ridge(written(tmp_path, pickle.dumps(wrong)))
    ridge = model()
    ridge.X_fit_ = np.zeros((6, 2))
    with pytest.raises(InputError, match="X_fit_"):
        read_kernel_ridge(written(tmp_path, pickle.dumps(ridge)))
    ridge.X_fit_ = np.array(["a"])
    with pytest.raises(InputError, match="no floats"):
        read_kernel_ridge(written(tmp_path, pickle.dumps(ridge)))
    del ridge.X_fit_
    with pytest.raises(InputError, match="lacks the array 'X_fit_'"):
        read_kernel_ridge(written(tmp_path, pickle.dumps(ridge)))
    with pytest.raises(InputError, match="cannot be read"):
        read_kernel_ridge(tmp_path / "absent")
    big = io.BytesIO()
    pickle.dump(np.zeros(2_000_000), big)
    with pytest.raises(InputError, match="more than"):
        read_kernel_ridge(written(tmp_path, big.getvalue()))


def doubled(times: int = 60) -> bytes:
    """A tuple of two tuples of two ...: small in the file, and for ever to hash or to print."""
    made = b"\x80\x04)\x94"
    for i in range(times):
        made += b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94"
    return made


RIDGE = b"\x8c\x14sklearn.kernel_ridge\x8c\x0bKernelRidge\x93)\x81"


def test_nested_tuples_do_not_hang_the_reader(tmp_path: Path) -> None:
    for content in (doubled() + b"0}h\x3cNs.", doubled() + b"0(h\x3cNd."):
        with pytest.raises(UnsafeFileError, match="keys that are no text"):
            read_kernel_ridge(written(tmp_path, content))
    for key in (b"kernel", b"gamma"):
        state = b"}(\x8c\x06kernel\x8c\x09laplacian\x8c" + bytes([len(key)]) + key + b"h\x3cub."
        with pytest.raises(InputError, match="tuple"):
            read_kernel_ridge(written(tmp_path, doubled() + b"0" + RIDGE + state))
    shape = b"\x8c\x06X_fit_\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93)R(K\x01h\x3cNNNtb"
    state = b"}(\x8c\x06kernel\x8c\x09laplacian\x8c\x05gammaN" + shape + b"ub."
    with pytest.raises(InputError):
        read_kernel_ridge(written(tmp_path, doubled() + b"0" + RIDGE + state))


def test_a_gamma_beyond_floats_is_another_regression(tmp_path: Path) -> None:
    huge = b"\x8c\x05gamma\x8b" + struct.pack("<i", 2000) + b"\x01" * 2000
    state = b"}(\x8c\x06kernel\x8c\x09laplacian" + huge + b"ub."
    with pytest.raises(InputError, match="gamma"):
        read_kernel_ridge(written(tmp_path, b"\x80\x04" + RIDGE + state))
