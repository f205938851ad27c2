"""`icemap demo`, small: the chain through a STAC API in processes, against known truth."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest

import icemap_xr as ix

ICEMAP = Path(sys.executable).parent / "icemap"


def demo(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(ICEMAP), "demo", "--output", str(output), "--size", "2.56", "--years", "2021-2022", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("demo") / "out"
    done = demo(output)
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def test_summary_compares_areas_and_changes_with_the_truth(shown: tuple[Path, str]) -> None:
    output, stdout = shown
    summary = json.loads((output / "summary.json").read_text())
    region = ix.simulate.region(size_km=2.56, years=(2021, 2022), seed=7)
    truth = region.areas().set_index("year")["area_km2"]
    assert [row["year"] for row in summary["years"]] == [2021, 2022]
    for row in summary["years"]:
        assert row["truth_km2"] == pytest.approx(truth.loc[row["year"]])
        assert row["low_km2"] < row["high_km2"]
        assert 0.3 < row["iou"] <= 1
        assert str(row["year"]) in stdout
    (change,) = summary["changes"]
    assert change["truth_km2"] == pytest.approx(truth.loc[2022] - truth.loc[2021])
    assert change["change_km2"] == pytest.approx(
        summary["years"][1]["area_km2"] - summary["years"][0]["area_km2"], abs=1e-9
    )
    assert summary["interval_kind"] == "mapping"
    assert "95 % interval (mapping)" in stdout
    assert "real glaciers need the published weights" in summary["model"]


def test_the_printed_lines_open_the_results(shown: tuple[Path, str]) -> None:
    output, stdout = shown
    _, _, printed = stdout.partition("open the results in Python:\n")
    code = "\n".join(line.strip() for line in printed.splitlines())
    code += "\nprint(len(outlines), sorted(archive.children), cube.sizes['year'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'maps'" in out
    assert "'outlines'" in out
    assert out.strip().endswith("2")
    assert len(gpd.read_parquet(output / "result" / "demo.parquet")) > 0


def test_the_report_is_one_file_with_its_pictures(shown: tuple[Path, str]) -> None:
    page = (shown[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page


def test_a_second_call_finds_everything_done_and_another_seed_is_refused(shown: tuple[Path, str]) -> None:
    output, _ = shown
    before = json.loads((output / "summary.json").read_text())
    again = demo(output)
    assert again.returncode == 0, again.stderr
    after = json.loads((output / "summary.json").read_text())
    assert {k: v for k, v in after.items() if k != "seconds"} == {k: v for k, v in before.items() if k != "seconds"}
    other = demo(output, "--seed", "8")
    assert other.returncode == 1
    assert other.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "choose a new folder" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0"], "size_km 0.0 is not a positive multiple of the pixel"),
        (["--size", "2.005"], "size_km 2.005 is not a positive multiple of the pixel"),
        (["--size", "nan"], "size_km nan is not a positive multiple"),
        (["--years", "1999"], "2015 to 2100"),
        (["--seed", "100"], "give 0 to 99"),
        (["--workers", "0"], "give at least 1"),
    ],
)
def test_bad_options_are_one_line_and_take_no_folder(tmp_path: Path, options: list[str], message: str) -> None:
    done = demo(tmp_path / "out", *options)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "is not empty: choose a new folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_one_line_and_leaves_no_scenes(tmp_path: Path) -> None:
    command = [str(ICEMAP), "demo", "--output", str(tmp_path / "out"), "--size", "2.56", "--years", "2021"]
    # no file may grow beyond 100 kB: Python turns the signal into an error of the write
    limits = (100_000, 100_000)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["icemap_run.json"]


@pytest.mark.parametrize("cover", [0.0, 1.0])
def test_one_year_without_any_glacier_and_of_nothing_else(tmp_path: Path, cover: float) -> None:
    code = f"""
from pathlib import Path
from rich.console import Console
from icemap_xr.demo import print_report, run_demo
from icemap_xr.simulate import Landscape
land = Landscape(ice_cover={cover})
done = run_demo(Path({str(tmp_path / "out")!r}), seed=1, size_km=1.28, years=(2021,), workers=1, landscape=land)
print_report(done, Console(width=140))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "Change" not in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (row,) = summary["years"]
    assert summary["changes"] == []
    assert row["truth_km2"] == pytest.approx(cover * 1.28**2, abs=1e-6)
    assert 0 <= row["low_km2"] <= row["high_km2"] <= 1.28**2 + 1e-6
    # no region like these was trained on, and it is smaller than any: far off, but not blind
    assert abs(row["area_km2"] - row["truth_km2"]) < 0.5 * 1.28**2
    assert (tmp_path / "out" / "report.html").is_file()
