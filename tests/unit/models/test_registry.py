"""Models are found by name, folder or file; downloads are checked before they get their name."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from icemap_xr import resources
from icemap_xr.errors import IcemapError, ModelError, ModelMismatchError, UnknownModelError, WeightsError
from icemap_xr.models import download, predictor, registry
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.digests import git_blob_id
from icemap_xr.models.icemapper import Architecture
from icemap_xr.models.registry import list_models, load_model

MakeH5 = Callable[..., Path]

PUBLISHED = {
    "ICEmapper_maxpool_grd": ("grd",),
    "ICEmapper_tweightedpool_grd": ("grd",),
    "ICEmapper_tweightedpool_grdinsar": ("grd", "insar"),
    "ICEmapper_tweightedpool_insar": ("insar",),
    "ICEmapper_tweightedpool_rtc": ("rtc",),
    "ICEmapper_tweightedpool_rtcinsar": ("rtc", "insar"),
}


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not write to stderr."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A file server on this machine: its address and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and an address at which nothing answers."""
    monkeypatch.setenv("ICEMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ICEMAP_WEIGHTS_URL", "http://127.0.0.1:9/weights")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def catalogs(tmp_path: Path, h5_file: Path, saved: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Catalogs with one published model and one bundle."""
    folder = tmp_path / "catalogs"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "demo").symlink_to(saved.folder)
    published = {
        "pooling": "tweightedpool",
        "file": "small_grdinsar.h5",
        "blob": git_blob_id(h5_file.read_bytes()),
        "features": ["grd", "insar"],
        "note": "for tests",
    }
    bundled = {"bundle": "models/demo", "features": ["grd", "insar"], "note": "for tests"}
    document = {
        "published": {"url": "http://127.0.0.1:9/elsewhere"},
        "models": {"small": published, "demo": bundled},
        "aliases": {"little": "small"},
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setattr(registry, "catalog_path", lambda *parts: folder.joinpath(*parts))
    return folder


# the registry that is shipped


def test_the_registry_lists_the_published_models_and_the_demonstration() -> None:
    rows = {row.name: row for row in list_models()}
    assert {name: rows[name].features for name in PUBLISHED} == PUBLISHED
    assert all(rows[name].kind == "published" and not rows[name].cached for name in PUBLISHED)
    assert rows["demo_grdinsar"].kind == "bundle"
    assert set(rows) == {*PUBLISHED, "demo_grdinsar", "demo_rtc"}
    assert "simulated" in rows["demo_grdinsar"].note


def test_published_entries_are_complete() -> None:
    for name, entry in registry._entries().items():
        if name in PUBLISHED:
            assert entry.file == f"{name}.h5"
            assert entry.pooling in name
            assert len(entry.blob) == 40
            assert int(entry.blob, 16) > 0


def test_the_name_the_published_program_expects_is_known() -> None:
    assert registry._entry("20241009_ICEmapper_v2_grdinsar").name == "ICEmapper_tweightedpool_grdinsar"


def test_offline_the_message_says_where_to_put_the_file(cache: Path) -> None:
    with pytest.raises(UnknownModelError, match="by hand") as caught:
        load_model("ICEmapper_maxpool_grd")
    assert str(cache / "ICEmapper_maxpool_grd.h5") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'ICEmapper_tweightedpool_grdinsar'"):
        load_model("ICEmapper_tweightedpool_grdinsr")


def test_neither_loading_nor_listing_imports_tensorflow(h5_file: Path, saved: ModelBundle) -> None:
    code = (
        "import sys, icemap_xr, icemap_xr.models as m\n"
        "m.list_models(); m.ModelBundle\n"
        f"m.load_model({str(h5_file)!r}).spec; m.load_model({str(saved.folder)!r}).spec\n"
        "bad = {'tensorflow', 'keras', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


# names


def test_a_published_model_is_downloaded_once_and_verified(
    catalogs: Path, server: tuple[str, Path], cache: Path, h5_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    (folder / "small_grdinsar.h5").write_bytes(h5_file.read_bytes())
    monkeypatch.setenv("ICEMAP_WEIGHTS_URL", url + "/")
    model = load_model("small", window=16, steps=3)
    assert model.spec.note == "published ICEmapper weights, verified"
    assert model.spec.name == "small"
    (folder / "small_grdinsar.h5").unlink()
    assert load_model("little", window=16, steps=3) is model, "the alias names the same model, from the cache"
    assert [path.name for path in cache.iterdir()] == ["small_grdinsar.h5"]
    assert {row.name: row.cached for row in list_models()} == {"small": True, "demo": True}


def test_a_wrong_download_never_gets_its_name(
    catalogs: Path, server: tuple[str, Path], cache: Path, h5_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    (folder / "small_grdinsar.h5").write_bytes(h5_file.read_bytes()[:-1] + b"?")
    monkeypatch.setenv("ICEMAP_WEIGHTS_URL", url)
    with pytest.raises(WeightsError, match="git blob id"):
        load_model("small")
    assert list(cache.iterdir()) == []


def test_a_download_that_breaks_off_never_gets_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Quiet):
        """Promise more bytes than are sent."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")

    monkeypatch.delenv("ICEMAP_WEIGHTS_URL")
    with ThreadingHTTPServer(("127.0.0.1", 0), Short) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        with pytest.raises((UnknownModelError, WeightsError)) as caught:
            download.fetch("a.h5", "0" * 40, f"http://127.0.0.1:{http.server_port}")
        http.shutdown()
        thread.join()
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    server: tuple[str, Path], cache: Path, h5_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    whole = h5_file.read_bytes()
    (folder / "a.h5").write_bytes(whole)
    cache.mkdir(parents=True)
    (cache / "a.h5").write_bytes(whole[:100])
    monkeypatch.delenv("ICEMAP_WEIGHTS_URL")
    assert download.fetch("a.h5", git_blob_id(whole), url).read_bytes() == whole


def test_a_wrong_file_put_into_the_cache_by_hand_is_named(
    server: tuple[str, Path], cache: Path, h5_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    (cache / "a.h5").write_bytes(h5_file.read_bytes())
    monkeypatch.delenv("ICEMAP_WEIGHTS_URL")
    with pytest.raises(WeightsError) as caught:
        download.fetch("a.h5", "0" * 40, server[0])
    message = str(caught.value)
    assert message.startswith(f"the file at {cache / 'a.h5'} has git blob id {git_blob_id(h5_file.read_bytes())}, ")
    assert "\n" not in message
    assert (cache / "a.h5").exists(), "what the user put there stays"


def test_a_server_without_the_file_is_named_with_its_answer(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICEMAP_WEIGHTS_URL")
    with pytest.raises(UnknownModelError, match="HTTP 404"):
        download.fetch("absent.h5", "0" * 40, server[0])


def test_a_worker_without_the_file_gets_it_from_the_registry(
    catalogs: Path, cache: Path, h5_file: Path, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / "small_grdinsar.h5").write_bytes(h5_file.read_bytes())
    model = load_model("small", window=16, steps=3)
    monkeypatch.setenv("ICEMAP_CACHE", str(tmp_path / "elsewhere"))
    cache.rename(tmp_path / "gone")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "gone").rename(tmp_path / "elsewhere" / "weights")
    assert model(windows).shape == (3, 16, 16, 2)


def test_a_bundle_is_loaded_by_its_name(catalogs: Path, saved: ModelBundle) -> None:
    model = load_model("demo")
    assert model.spec == saved.spec
    assert load_model("demo", features=["grd", "insar"]) is model


def test_a_bundle_that_is_missing_is_an_unknown_model(catalogs: Path) -> None:
    (catalogs / "models" / "demo").unlink()
    assert {row.name: row.cached for row in list_models()}["demo"] is False
    with pytest.raises(UnknownModelError, match="the installation lacks it"):
        load_model("demo")


def test_own_weights_for_a_registered_name_are_checked_against_the_published(
    catalogs: Path, h5_file: Path, architecture: Architecture, caplog: pytest.LogCaptureFixture, make_h5: MakeH5
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_model("small", weights=h5_file).spec.note == registry.VERIFIED
        assert not caplog.records
        other = make_h5("mine.h5", architecture, seed=1)
        note = load_model("small", weights=other).spec.note
    assert "not the published file" in note
    assert "not the published file" in caplog.text


def test_own_weights_of_another_network_are_refused(catalogs: Path, make_h5: MakeH5) -> None:
    pooling = Architecture("maxpool", features=2, filters=4)
    with pytest.raises(ModelError, match="maxpool"):
        load_model("small", weights=make_h5("max.h5", pooling))
    single = Architecture(features=1, filters=4)
    with pytest.raises(ModelError, match=r"1 feature\(s\)"):
        load_model("small", weights=make_h5("one.h5", single))


def test_declared_features_cannot_be_changed(catalogs: Path, h5_file: Path) -> None:
    for name, options in (("demo", {}), ("small", {"weights": h5_file})):
        with pytest.raises(ModelMismatchError, match="grd, insar"):
            load_model(name, features=["rtc", "insar"], **options)


def test_declared_features_in_another_order_are_refused(catalogs: Path, h5_file: Path, saved: ModelBundle) -> None:
    renamed = h5_file.with_name("mine_rtcinsar.h5")
    renamed.write_bytes(h5_file.read_bytes())
    calls = [("demo", {}), ("small", {"weights": h5_file}), (saved.folder, {}), (h5_file, {}), (renamed, {})]
    for name, options in calls:
        with pytest.raises(ModelMismatchError, match="takes the features grd, insar, given are insar, grd"):
            load_model(name, features=["insar", "grd"], **options)
    assert load_model(renamed, features=["grd", "insar"]).spec.inputs[0].feature_names == ("grd", "insar")


def test_the_published_file_of_another_model_is_refused(
    catalogs: Path, h5_file: Path, architecture: Architecture, make_h5: MakeH5
) -> None:
    document = yaml.safe_load((catalogs / "models.yaml").read_text())
    rtc = make_h5("other.h5", architecture, seed=2)
    entry = {"file": "rtc.h5", "features": ["rtc", "insar"], "blob": git_blob_id(rtc.read_bytes())}
    document["models"]["other"] = document["models"]["small"] | entry
    (catalogs / "models.yaml").write_text(yaml.safe_dump(document))
    registry._read_registry.cache_clear()
    assert load_model("other", weights=rtc).spec.inputs[0].feature_names == ("rtc", "insar")
    with pytest.raises(ModelError, match=r"'other\.h5' is the published file of 'other', not of 'small', and"):
        load_model("small", weights=rtc)
    with pytest.raises(ModelError, match="is the published file of 'small', not of 'other'"):
        load_model("other", weights=h5_file)


def test_weights_go_only_with_names_of_published_models(catalogs: Path, h5_file: Path) -> None:
    with pytest.raises(ModelError, match="leave weights= out"):
        load_model("demo", weights=h5_file)
    with pytest.raises(ModelError, match="leave it out"):
        load_model(h5_file, weights=h5_file)


# paths


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("tweightedpool_grdinsar_filters8", ("grd", "insar")),
        ("ICEmapper_tweightedpool_rtcinsar", ("rtc", "insar")),
        ("maxpool_grd", ("grd",)),
        ("insar", ("insar",)),
        ("x-RTC-best", ("rtc",)),
    ],
)
def test_features_are_read_from_the_name_of_a_file(name: str, features: tuple[str, ...], make_h5: MakeH5) -> None:
    architecture = Architecture("maxpool", features=len(features), filters=2)
    model = load_model(make_h5(f"{name}.h5", architecture))
    assert model.spec.inputs[0].feature_names == features
    assert model.spec.note == f"weights read from {name}.h5 (published layout; not verified as a published file)"
    assert (model.spec.steps, model.spec.window) == (15, 384)


def test_a_file_known_by_its_bytes_is_verified_under_any_name(catalogs: Path, h5_file: Path) -> None:
    model = load_model(h5_file.rename(h5_file.with_name("unknown_rtcinsar.h5")))
    assert model.spec.note == registry.VERIFIED
    assert registry.published_address(model.spec) == "http://127.0.0.1:9/elsewhere/small_grdinsar.h5"
    assert registry.published_address(replace(model.spec, note="read from a file")) is None
    assert model.spec.inputs[0].feature_names == ("grd", "insar")


def test_two_unnamed_features_are_taken_as_grd_and_insar_with_a_warning(
    architecture: Architecture, caplog: pytest.LogCaptureFixture, make_h5: MakeH5
) -> None:
    path = make_h5("weights.h5", architecture)
    assert load_model(path).spec.inputs[0].feature_names == ("grd", "insar")
    assert "features=" in caplog.text
    caplog.clear()
    assert load_model(path, features=("rtc", "insar")).spec.inputs[0].feature_names == ("rtc", "insar")
    assert not caplog.records


def test_one_unnamed_feature_must_be_named(make_h5: MakeH5) -> None:
    architecture = Architecture("maxpool", features=1, filters=2)
    path = make_h5("weights.h5", architecture)
    with pytest.raises(ModelError, match="give features="):
        load_model(path)
    assert load_model(path, features=["insar"]).spec.features[0].maximum == pytest.approx(0.9979742169380188)


def test_features_of_another_number_are_refused(h5_file: Path) -> None:
    for features in (["grd"], ["grd", "insar", "rtc"]):
        with pytest.raises(ModelError, match=r"takes 2 feature\(s\)"):
            load_model(h5_file, features=features)
    with pytest.raises(ModelError, match=r"takes 2 feature\(s\)"):
        load_model(h5_file.rename(h5_file.with_name("tiny_grd.h5")))
    with pytest.raises(ModelError, match="list of names"):
        load_model(h5_file.with_name("tiny_grd.h5"), features="grdinsar")
    with pytest.raises(IcemapError, match="unknown feature"):
        load_model(h5_file.with_name("tiny_grd.h5"), features=["grd", "coherence"])


def test_more_classes_than_published_need_a_bundle(make_h5: MakeH5) -> None:
    architecture = Architecture("maxpool", features=1, classes=3, filters=2)
    with pytest.raises(ModelError, match="bundle"):
        load_model(make_h5("a_grd.h5", architecture))


def test_paths_without_a_model_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("x")
    for path, reason in (
        ("absent.h5", "check the path"),
        ("absent/folder", "check the path"),
        ("model.txt", "neither"),
    ):
        with pytest.raises(UnknownModelError, match=reason):
            load_model(tmp_path / path)
    with pytest.raises(UnknownModelError, match="no model bundle"):
        load_model(tmp_path)


@pytest.mark.parametrize("options", [{"window": 20}, {"steps": 0}, {"precision": "float64"}])
def test_impossible_options_are_refused_before_anything_is_built(
    saved: ModelBundle, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "compiled", None)
    with pytest.raises(ModelError, match=next(iter(options))):
        load_model(saved.folder, **options)


# the catalogs' folder


def test_catalogs_are_found_beside_the_package_or_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.catalog_path("models.yaml").is_file()
    package = tmp_path / "icemap_xr"
    package.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(IcemapError, match="no catalogs folder"):
        resources.catalog_path("models.yaml")
    (package / "_catalogs").mkdir()
    assert resources.catalog_path("a", "b") == package / "_catalogs" / "a" / "b"
