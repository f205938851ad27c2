"""Reads the published calibration, a pickled scikit-learn KernelRidge, without unpickling it.

The opcodes are walked, and only what such a file holds is understood: numbers, text, lists, and the recipe of a NumPy
array as data. Nothing is imported and nothing is called; any other opcode or name is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np

from icemap_xr.calibrators import KernelRidgeCalibrator
from icemap_xr.errors import InputError, UnsafeFileError
from icemap_xr.types import StrPath

#: a published file has 3 kB
_MOST_BYTES = 10_000_000
_MOST_VALUES = 100_000
#: whole numbers from this on are no floats, and too long to print
_HUGE = 1e300

_RIDGE = ("sklearn.kernel_ridge", "KernelRidge")
#: what a name stands for; NumPy 1 and 2 and both generations of Python call some of them differently
_NAMES: dict[tuple[str, str], str] = {
    _RIDGE: "ridge",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("copy_reg", "_reconstructor"): "object",
    ("copyreg", "_reconstructor"): "object",
    ("__builtin__", "object"): "base",
    ("builtins", "object"): "base",
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "array" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "buffer" for core in ("core", "_core")},
}


@dataclass(frozen=True)
class _Name:
    """A name in the file; never looked up."""

    role: str


@dataclass(eq=False)
class _Made:
    """What the file would make by calling a name: kept as data."""

    role: str
    args: tuple[Any, ...]
    state: Any = None


@dataclass
class _Machine:
    """Stack and memo of a pickle, holding data only."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        at = self.marks.pop()
        taken = self.stack[at:]
        del self.stack[at:]
        return taken

    def name(self, module: Any, name: Any) -> None:
        """Push a name, if such a file may hold it."""
        role = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if role is None:
            raise UnsafeFileError(
                f"the file names {module}.{name}, which no kernel ridge regression needs: it may be malicious; "
                "do not unpickle it, get the file from its author"
            )
        self.stack.append(_Name(role))

    def call(self) -> None:
        """Note a call as data; only the few calls of arrays and of the regression itself are known."""
        args, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, _Name) or not isinstance(args, tuple):
            raise UnsafeFileError("the file calls what is no name: it may be malicious; do not unpickle it")
        self.stack.append(_Made(called.role, args))

    def build(self) -> None:
        """Note a state as data."""
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Made):
            raise UnsafeFileError("the file sets the state of what it did not make: do not unpickle it")
        made.state = state

    def put_items(self, items: list[Any]) -> None:
        """Put pairs into the dict on the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise UnsafeFileError("the file fills what is no dict: do not unpickle it")
        target.update(_entries(items))

    def tuple_of(self, count: int) -> None:
        """Join the topmost values."""
        taken = tuple(self.stack[len(self.stack) - count :])
        if len(taken) < count:
            raise IndexError(count)
        del self.stack[len(self.stack) - count :]
        self.stack.append(taken)


def _entries(items: list[Any]) -> dict[str, Any]:
    """Return a dict of keys and values in turn; nested tuples as keys could take for ever to hash."""
    keys = items[::2]
    if not all(isinstance(one, str) for one in keys):
        raise UnsafeFileError("the file has a dict with keys that are no text: it may be malicious; do not unpickle it")
    return dict(zip(keys, items[1::2], strict=True))


def _brief(value: Any) -> str:
    """Return a value for a message; containers, which may hold themselves many times over, by their kind alone."""
    if isinstance(value, int) and abs(value) >= _HUGE:
        return "of very many digits"
    return repr(value)[:40] if value is None or isinstance(value, str | int | float) else type(value).__name__


#: opcodes whose argument is the value they push
_PUSH = frozenset(
    {"INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, arg: None,
    "FRAME": lambda machine, arg: None,
    "STOP": lambda machine, arg: None,
    "MARK": lambda machine, arg: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, arg: machine.stack.pop(),
    "POP_MARK": lambda machine, arg: machine.since_mark(),
    "GLOBAL": lambda machine, arg: machine.name(*arg.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, arg: machine.name(*reversed([machine.stack.pop(), machine.stack.pop()])),
    "REDUCE": lambda machine, arg: machine.call(),
    "NEWOBJ": lambda machine, arg: machine.call(),
    "BUILD": lambda machine, arg: machine.build(),
    "TUPLE": lambda machine, arg: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, arg: machine.tuple_of(1),
    "TUPLE2": lambda machine, arg: machine.tuple_of(2),
    "TUPLE3": lambda machine, arg: machine.tuple_of(3),
    "DICT": lambda machine, arg: machine.stack.append(_entries(machine.since_mark())),
    "SETITEM": lambda machine, arg: machine.put_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, arg: machine.put_items(machine.since_mark()),
    "MEMOIZE": lambda machine, arg: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, arg: machine.memo.__setitem__(arg, machine.stack[-1])
    ),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, arg: machine.stack.append(machine.memo[arg])),
}


def read_kernel_ridge(
    path: StrPath, *, name: str = "", fitted_on: str = "", map_kind: str = ""
) -> KernelRidgeCalibrator:
    """Read the published calibrator from its scikit-learn file.

    Only the arrays `X_fit_` and `dual_coef_` are taken. The file is read as data: nothing in it is executed, whatever
    it holds.

    Parameters
    ----------
    path
        File with one `sklearn.kernel_ridge.KernelRidge` of one feature and one target, with the Laplacian kernel of
        width 1; any pickle protocol.
    name, fitted_on, map_kind
        What the file does not say; see `KnotCalibrator`. The file's own name by default.

    Raises
    ------
    UnsafeFileError
        The file holds anything that such a regression does not need.
    InputError
        It cannot be read, is damaged, or holds another regression.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}): give the calibrator's file") from None
    if len(content) > _MOST_BYTES:
        raise InputError(f"{str(path)!r} has more than {_MOST_BYTES} bytes: that is no calibrator")
    state = _ridge_state(_walk(content), str(path))
    kernel = state.get("kernel")
    if not isinstance(kernel, str) or kernel != "laplacian" or _number(state.get("gamma")) not in (None, 1.0):
        raise InputError(
            f"{str(path)!r} holds a regression with kernel {_brief(state.get('kernel'))}, gamma "
            f"{_brief(state.get('gamma'))}: the "
            "published calibration has kernel 'laplacian' and gamma None"
        )
    x_fit, dual = (_array(state.get(key), key) for key in ("X_fit_", "dual_coef_"))
    return KernelRidgeCalibrator.from_support(x_fit, dual, name or Path(path).stem, fitted_on, map_kind)


def _walk(content: bytes) -> Any:
    """Return what the file holds, as data."""
    machine = _Machine()
    try:
        for opcode, argument, _ in genops(content):
            if opcode.name in _PUSH:
                machine.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                machine.stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](machine, argument)
            else:
                raise UnsafeFileError(
                    f"the file uses the opcode {opcode.name}, which no kernel ridge regression needs: it may be "
                    "malicious; do not unpickle it"
                )
    except UnsafeFileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        cause = " ".join(str(error).split())[:80]
        raise InputError(f"the file is no pickle or a damaged one ({cause}): get it again") from None
    if len(machine.stack) != 1:
        raise InputError("the file is a damaged pickle: get it again")
    return machine.stack[0]


def _ridge_state(held: Any, path: str) -> dict[Any, Any]:
    """Return the attributes of the regression."""
    if isinstance(held, _Made) and isinstance(held.state, dict):
        first = held.args[0] if held.args else None
        # protocols 0 and 1 make objects through copyreg, later ones by the class itself
        if held.role == "ridge" or (held.role == "object" and isinstance(first, _Name) and first.role == "ridge"):
            return held.state
    raise InputError(f"{path!r} holds no kernel ridge regression: give the published calibrator's file")


def _dtype(made: Any) -> np.dtype[Any]:
    """Return the type of a float array; objects, records and text are refused."""
    if isinstance(made, _Made) and made.role == "dtype" and made.args and made.args[0] in ("f8", "f4"):
        order = made.state[1] if isinstance(made.state, tuple) and len(made.state) > 1 else "<"
        if order in ("<", ">", "="):
            return np.dtype(f"{order}{made.args[0]}")
    raise InputError("the regression holds arrays that are no floats: this is not the published calibration")


def _bytes(value: Any) -> bytes:
    # protocols 0 to 2 have no bytes and write them as latin-1 text to be encoded
    if isinstance(value, _Made) and value.role == "encode" and len(value.args) == 2 and value.args[1] == "latin1":
        value = value.args[0]
    if isinstance(value, str):
        try:
            value = value.encode("latin1")
        except UnicodeEncodeError:
            value = None
    if not isinstance(value, bytes | bytearray):
        raise InputError("the regression's arrays hold no bytes: the file is damaged")
    return bytes(value)


def _array(made: Any, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a float array from its recipe."""
    if isinstance(made, _Made) and made.role == "array" and isinstance(made.state, tuple) and len(made.state) == 5:
        _, shape, dtype, fortran, raw = made.state
    elif isinstance(made, _Made) and made.role == "buffer" and len(made.args) == 4:
        raw, dtype, shape, fortran = made.args
        fortran = fortran == "F"
    else:
        raise InputError(f"the regression lacks the array {name!r}: this is not the published calibration")
    values, kind = _bytes(raw), _dtype(dtype)
    sizes = shape if isinstance(shape, tuple) else ()
    if not 1 <= len(sizes) <= 2 or not all(isinstance(one, int) and 0 < one <= _MOST_VALUES for one in sizes):
        raise InputError(
            f"{name!r} has {_brief(shape)} as its shape: the published calibration has one feature and one target"
        )
    # sizes are a few whole numbers by now
    if math.prod(sizes) * kind.itemsize != len(values) or (len(sizes) == 2 and sizes[1] != 1):
        raise InputError(f"{name!r} has shape {shape!r} and {len(values)} bytes: the file is damaged or another one")
    flat = np.frombuffer(values, kind).astype(np.float64)
    return flat.reshape(sizes, order="F" if fortran else "C").reshape(-1)


def _number(value: Any) -> float | None:
    """Return a plain or NumPy number; NaN for anything else, which equals nothing."""
    if value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < _HUGE else math.nan
    if isinstance(value, _Made) and value.role == "scalar" and len(value.args) == 2:
        raw = _bytes(value.args[1])
        kind = _dtype(value.args[0])
        return float(np.frombuffer(raw, kind)[0]) if len(raw) == kind.itemsize else math.nan
    return math.nan
