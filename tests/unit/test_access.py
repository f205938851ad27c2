"""Addresses that may be opened, and credentials that go nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icemap_xr.access import Access, _parts
from icemap_xr.errors import AccessError, ConfigError
from icemap_xr.web import Patience

CLOSED = Access(schemes=("https",), hosts=("data.example.org", "*.store.example.org"))


@pytest.mark.parametrize(
    "href",
    [
        "https://data.example.org/a.tif",
        "https://DATA.example.org:443/a.tif",
        "https://a.store.example.org/x/a.tif?sig=1",
    ],
)
def test_named_hosts_are_open(href: str) -> None:
    CLOSED.check(href, local=False, what="it")


@pytest.mark.parametrize(
    ("href", "match"),
    [
        ("https://data.example.org@evil.org/a.tif", "evil.org"),
        ("https://evil.org/data.example.org/a.tif", "evil.org"),
        ("https://data.example.org.evil.org/a.tif", "evil.org"),
        ("https://store.example.org/a.tif", "store.example.org"),
        ("http://data.example.org/a.tif", "'http'"),
        ("https://data.example.org\\@evil.org/a.tif", "backslashes"),
        ("https://data.example.org/a\nb.tif", "control"),
        ("https:///a.tif", "without a host"),
        ("https://[x/a.tif", "'broken'"),
        ("https://data.example.org/a.VRT", "description"),
        ("/data/a.tif", "local file"),
        ("data/a.tif", "local file"),
        ("file:///data/a.tif", "'file'|local"),
        ("/vsicurl/https://data.example.org/a.tif", "virtual"),
        ("/VSIMEM/a.tif", "virtual"),
        ("NETCDF:a.nc:x", "NETCDF"),
    ],
)
def test_all_else_is_not(href: str, match: str) -> None:
    with pytest.raises(AccessError, match=match) as caught:
        CLOSED.check(href, local=True, what="item 'a'")
    assert "\n" not in str(caught.value)


def test_the_default_is_for_ones_own_data() -> None:
    own = Access()
    for href in ("/data/a.tif", "a.tif", "http://127.0.0.1:8000/a.tif", "s3://bucket/a.tif"):
        own.check(href, local=True, what="it")
    with pytest.raises(AccessError, match="catalogue on the network"):
        own.check("/data/a.tif", local=False, what="it")
    assert own.options("http://host/a.tif", Patience()) == {}
    # whatever keys the environment holds, they are for some service of the user's, not for any bucket
    assert own.options("s3://bucket/a.tif", Patience()) == {"AWS_NO_SIGN_REQUEST": "YES"}
    assert own.signed("http://host/a.tif", Patience()) == "http://host/a.tif"
    assert not own.renew("http://host/a.tif")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"signing": "s3"}, "without hosts"),
        ({"signing": "sas", "hosts": ("a",)}, "token_url"),
        ({"gdal": {"AWS_SECRET_ACCESS_KEY": "x"}}, "environment variable"),
        ({"gdal": {"GDAL_HTTP_HEADERS": "Authorization: x"}}, "environment variable"),
        ({"gdal": {"GDAL_HTTP_USERPWD": "a:b"}}, "environment variable"),
        ({"credentials": {"AWS_ACCESS_KEY_ID": "A"}}, "without signing"),
    ],
)
def test_profiles_that_would_leak_are_refused(content: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Access(**content)


def test_keys_are_given_for_their_scheme_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    keys = Access(hosts=("b",), signing="s3", credentials={"AWS_ACCESS_KEY_ID": "MY_KEY"}, gdal={"AWS_HTTPS": "YES"})
    options = {"AWS_HTTPS": "YES", "AWS_ACCESS_KEY_ID": "k", "AWS_SESSION_TOKEN": ""}
    assert keys.options("s3://b/a.tif", Patience()) == options
    assert keys.options("https://b/a.tif", Patience()) == {"AWS_HTTPS": "YES"}
    assert "k" not in repr(keys).replace("keys", "").split("MY_KEY")[1]
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(AccessError, match="MY_KEY is not set"):
        keys.options("s3://b/a.tif", Patience())


@given(account=st.text(max_size=20), container=st.text(max_size=20))
def test_nothing_of_an_address_becomes_another_token_address(account: str, container: str) -> None:
    access = Access(hosts=("*",), signing="sas", token_url="https://sign.example/t/{account}/{container}")
    try:
        address = access._token_address(f"https://{account}.x/{container}/a.tif")
    except ValueError:
        return
    assert address.startswith("https://sign.example/t/")
    assert "?" not in address
    assert "#" not in address
    assert address.count("/") == 5


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    scheme, _ = _parts(text)
    assert isinstance(scheme, str)
    if scheme != "https":
        with pytest.raises(AccessError):
            CLOSED.check(text, local=True, what="it")


def test_a_session_token_may_be_unset_and_is_never_that_of_another_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another service")
    how = {"AWS_ACCESS_KEY_ID": "MY_KEY"}
    plain = Access(hosts=("b",), signing="s3", credentials=how)
    assert plain.options("s3://b/a.tif", Patience())["AWS_SESSION_TOKEN"] == ""
    named = Access(hosts=("b",), signing="s3", credentials=how | {"AWS_SESSION_TOKEN": "MY_SESSION"})
    assert named.options("s3://b/a.tif", Patience())["AWS_SESSION_TOKEN"] == ""
    monkeypatch.setenv("MY_SESSION", "mine")
    assert named.options("s3://b/a.tif", Patience())["AWS_SESSION_TOKEN"] == "mine"
