"""Ctrl-C: what fails while a cluster is taken down is not shown, and everything is afterwards."""

from __future__ import annotations

import logging

import pytest

from icemap_xr.interrupted import Calm

LOG = logging.getLogger("tornado.application")


def work(error: BaseException) -> None:
    """Fail, and log while the cluster goes."""
    with Calm() as calm:
        try:
            with calm.interrupted():
                LOG.error("before")
                raise error
        finally:
            LOG.error("as the cluster goes")


def test_callbacks_are_silent_between_the_interruption_and_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(KeyboardInterrupt())
    LOG.error("after")
    assert caplog.messages == ["before", "after"]


def test_other_errors_silence_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="of the work"):
        work(ValueError("of the work"))
    assert caplog.messages == ["before", "as the cluster goes"]
