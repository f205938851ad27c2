"""XML of somebody else: read without document types, entities or anything outside the file."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import AnnotationError

#: the largest annotation known has 7 MB
MOST_BYTES = 64 * 2**20
_MOST_DEPTH = 64
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z?$")


def parse(content: bytes, name: str) -> ElementTree.Element:
    """Return the root of an XML document.

    The standard parser would expand entities that a document type declares; none of the annotations has one, so a
    document type is refused before anything of it is used.

    Raises
    ------
    AnnotationError
        It is no XML, too large, nested too deep, or declares a document type or entities.
    """
    if len(content) > MOST_BYTES:
        raise AnnotationError(f"{name} has {len(content)} bytes, allowed are {MOST_BYTES}: this is no annotation")
    builder = ElementTree.TreeBuilder()
    depth = 0

    def refuse(*_: Any) -> None:
        raise AnnotationError(f"{name} declares a document type or entities: this is no annotation, it was not read")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise AnnotationError(f"{name} is nested deeper than {_MOST_DEPTH} levels: this is no annotation")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{name} cannot be read as XML ({error}): fetch the file again") from None


def child(element: ElementTree.Element, path: str, name: str) -> ElementTree.Element:
    """Return an element below another, or raise `AnnotationError`."""
    found = element.find(path)
    if found is None:
        raise AnnotationError(f"{name} has no {path}: it is damaged, or no annotation of a Sentinel-1 GRD product")
    return found


def text(element: ElementTree.Element, path: str, name: str) -> str:
    """Return the text of an element below another."""
    return (child(element, path, name).text or "").strip()


def number(element: ElementTree.Element, path: str, name: str) -> float:
    """Return a finite number below an element."""
    found = numbers(element, path, name)
    if found.size != 1:
        raise AnnotationError(f"{name} has {found.size} numbers in {path}, wanted is 1: it is damaged")
    return float(found[0])


def numbers(element: ElementTree.Element, path: str, name: str) -> NDArray[np.float64]:
    """Return the finite numbers below an element, as many as its `count` says."""
    node = child(element, path, name)
    try:
        found = np.array((node.text or "").split(), np.float64)
    except ValueError as error:
        raise AnnotationError(f"{name} has text where {path} wants numbers ({error}): it is damaged") from None
    if not np.isfinite(found).all() or found.size != int(node.get("count") or found.size):
        raise AnnotationError(f"{name} has {found.size} numbers in {path}, not all finite or not as counted")
    return found


def moment(element: ElementTree.Element, path: str, name: str) -> np.datetime64:
    """Return a UTC time below an element."""
    found = text(element, path, name)
    if not _MOMENT.match(found):
        raise AnnotationError(f"{name} has {found[:40]!r} where {path} wants a time: it is damaged")
    try:
        datetime.fromisoformat(found[:19])
    except ValueError:
        raise AnnotationError(f"{name} has {found[:40]!r} where {path} wants a time: it is damaged") from None
    return np.datetime64(found.removesuffix("Z"), "ns")
