"""Progress: a bar for people, lines for log files."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from icemap_xr.progress import progress


def test_a_log_file_gets_a_line_per_tenth_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "icemap_xr"),
        progress("reading", 1000, console=Console(file=io.StringIO())) as go,
    ):
        for _ in range(1000):
            go(1)
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "reading: 100 of 1000 (10 %)"
    assert caplog.messages[-1] == "reading: 1000 of 1000 (100 %)"


def test_a_terminal_gets_a_bar_and_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with caplog.at_level(logging.INFO, "icemap_xr"), progress("reading", 4, console=console) as go:
        go(3)
        go(1)
    assert "reading" in out.getvalue()
    assert "4/4" in out.getvalue()
    assert not caplog.messages


def test_how_it_stands_is_told_in_a_terminal_and_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        with caplog.at_level(logging.INFO, "icemap_xr"), progress("training", 2, console=console) as go:
            go(1, "epoch 1, IoU 0.812")
            go(1, note="epoch 1, IoU 0.834")
        assert ("IoU 0.834" in out.getvalue()) == terminal
    assert caplog.messages[-1] == "training: 2 of 2 (100 %); epoch 1, IoU 0.834"


def test_an_error_passes_through() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with pytest.raises(OSError, match="gone"), progress("reading", 2, console=console):
            raise OSError("gone")


def test_a_saved_notebook_shows_the_bar_s_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets", reason="rich needs ipywidgets to show a bar in Jupyter")
    shown: list[str] = []
    monkeypatch.setattr("rich.jupyter.display", lambda _, text: shown.append(text))
    console = Console(file=io.StringIO(), force_jupyter=True, width=100)
    with progress("reading", 4, console=console) as go:
        go(3)
    assert "3/4" in shown[-1]
