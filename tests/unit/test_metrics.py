"""Our own counters, as Prometheus gets them from a worker; and runs that are watched."""

from __future__ import annotations

import importlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import dask
import pytest
import requests

from icemap_xr import metrics
from icemap_xr.cluster import cluster
from icemap_xr.predict import predict
from icemap_xr.runwatch import REPORT, watched
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset


def value(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"icemap_{name}_total"))


def test_workers_tell_how_many_windows_they_mapped(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    ds = yearly_dataset((32, 48)).chunk()
    with cluster("local", workers=1) as client:
        assert client is not None
        model = FakePredictor()
        with watched(client, model, tmp_path):
            predict(ds, model, overlap=0.0).compute()
        (worker,) = client.scheduler_info()["workers"].values()
        port, host = worker["services"]["dashboard"], urlsplit(worker["nanny"]).hostname
        assert host == "127.0.0.1"
        text = requests.get(f"http://{host}:{port}/metrics", timeout=10).text
    # the one of the preload has no part in it
    assert value(text, "windows") == 2 * 3
    assert "dask_worker_tasks" in text


def test_without_prometheus_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setattr(metrics, "_COUNTERS", {})
    metrics.count("holes")
    assert metrics._COUNTERS == {"holes": None}


def test_threads_that_count_first_at_the_same_time_share_one_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def slow(name: str) -> None:
        time.sleep(0.05)
        made.append(name)

    monkeypatch.setattr(metrics, "_COUNTERS", {})
    monkeypatch.setattr(metrics, "_made", slow)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(metrics.count, ["windows"] * 8))
    assert made == ["windows"]


def test_a_run_on_a_cluster_keeps_the_report_of_dask(tmp_path: Path) -> None:
    pytest.importorskip("bokeh", reason="bokeh is not installed")
    model = FakePredictor()
    with cluster("local", workers=1) as client, watched(client, model, tmp_path):
        dask.compute(dask.delayed(sum)([1, 2]))
    assert "bokeh" in (tmp_path / REPORT).read_text().lower()


def test_without_bokeh_or_cluster_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("icemap_xr.runwatch"), "find_spec", lambda name: None)
    model = FakePredictor()
    with watched(None, model, tmp_path):
        pass
    with cluster("local", workers=1) as client, watched(client, model, tmp_path):
        pass
    assert not list(tmp_path.iterdir())
