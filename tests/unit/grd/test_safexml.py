import numpy as np
import pytest

from icemap_xr.errors import AnnotationError
from icemap_xr.grd.safexml import MOST_BYTES, moment, number, numbers, parse

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY x "0123456789"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>
<a>&y;</a>"""
OUTSIDE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>'


@pytest.mark.parametrize("content", [BOMB, OUTSIDE, b'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>'])
def test_document_types_are_refused(content: bytes) -> None:
    with pytest.raises(AnnotationError, match="document type"):
        parse(content, "a.xml")


def test_in_utf16_too() -> None:
    with pytest.raises(AnnotationError):
        parse(BOMB.decode().replace("1.0", "1.0").encode("utf-16"), "a.xml")


@pytest.mark.parametrize("content", [b"", b"<a>", b"<a></b>", b"no xml", b"<a/><b/>", b"<a>&unknown;</a>"])
def test_what_is_no_xml_is_told_with_its_name(content: bytes) -> None:
    with pytest.raises(AnnotationError, match=r"a\.xml cannot be read as XML"):
        parse(content, "a.xml")


def test_too_deep_and_too_large_are_refused() -> None:
    with pytest.raises(AnnotationError, match="nested deeper"):
        parse(b"<a>" * 100 + b"</a>" * 100, "a.xml")
    with pytest.raises(AnnotationError, match="bytes"):
        parse(b" " * (MOST_BYTES + 1), "a.xml")


def test_numbers_are_as_many_as_counted_and_finite() -> None:
    root = parse(b'<a><b count="3">1 2.5e1 -3</b><c count="2">1</c><d>nan</d><e>x</e><f>1 2</f></a>', "a.xml")
    assert numbers(root, "b", "a").tolist() == [1, 25, -3]
    for path in ("c", "d", "e", "missing"):
        with pytest.raises(AnnotationError, match=r"a\.xml has"):
            numbers(root, path, "a.xml")
    with pytest.raises(AnnotationError, match="2 numbers in f, wanted is 1"):
        number(root, "f", "a.xml")


def test_times_are_utc_with_nanoseconds() -> None:
    root = parse(b"<a><t>2022-11-30T01:43:42.546629</t><u>2022-13-30T01:43:42</u><v>yesterday</v></a>", "a.xml")
    assert moment(root, "t", "a") == np.datetime64("2022-11-30T01:43:42.546629", "ns")
    for path in "uv":
        with pytest.raises(AnnotationError, match="wants a time"):
            moment(root, path, "a.xml")
