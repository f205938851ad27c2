"""URLs in messages and metadata hold no credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icemap_xr.urls import WITHHELD, scrub


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://user:pass@host.org:8080/a/b.tif?sig=abc&x=1#part", "https://host.org:8080/a/b.tif"),
        ("https://token@host.org/a", "https://host.org/a"),
        ("s3://bucket/key?X-Amz-Signature=1", "s3://bucket/key"),
        ("/vsicurl/https://u:p@h/x.tif?sig=1", "/vsicurl/https://h/x.tif"),
        ("http://[::1]:80/x?t=1", "http://[::1]:80/x"),
        ("http://host:port/x", "http://host:port/x"),
        ("/data/a folder/x.tif", "/data/a folder/x.tif"),
        (Path("/data/x.tif"), "/data/x.tif"),
        ("see http://a:b@h/x?y and https://i/z?w now", "see http://h/x and https://i/z now"),
        ("'https://a:b@h/x.tif?sig=1' is no file", "'https://h/x.tif is no file"),
        # who is user and who is host cannot be told: nothing is shown
        ("https://host/a.tif?mail=me@x.org&sig=1", f"https://{WITHHELD}"),
        ("get https://user:pa/ss@host.org/a.tif now", f"get https://{WITHHELD} now"),
    ],
)
def test_credentials_are_left_out_and_the_rest_stays(given: object, shown: str) -> None:
    assert scrub(given) == shown


word = st.text("abcXYZ019-_.%", min_size=3, max_size=12).map(lambda text: "SECRET" + text)


@given(user=word, password=word, query=word, fragment=word)
def test_no_part_that_may_hold_a_secret_is_shown(user: str, password: str, query: str, fragment: str) -> None:
    url = f"https://{user}:{password}@example.org/path/x.tif?{query}={query}#{fragment}"
    for text in (url, f"'/vsicurl/{url}' not recognised", f"HTTP error 403 for {url}"):
        assert "SECRET" not in scrub(text)
        assert "example.org/path/x.tif" in scrub(text)


raw = st.text("abcXYZ019-_.%/?#@:&=", max_size=12)


@given(parts=st.tuples(raw, raw, raw), query=raw)
def test_a_password_with_raw_delimiters_leaves_no_tail(parts: tuple[str, str, str], query: str) -> None:
    password = f"{parts[0]}SECRET{parts[1]}SECRET{parts[2]}"
    for user in ("user:", ""):
        url = f"https://{user}{password}@example.org/path/x.tif?sig=SECRET{query}"
        for text in (url, f"/vsicurl/{url}", f"HTTP error 403 for {url} (SQL)"):
            assert "SECRET" not in scrub(text)
