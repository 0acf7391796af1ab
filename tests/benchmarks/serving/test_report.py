import json
from pathlib import Path

from benchmarks.serving.report import markdown
from benchmarks.serving.results import Results
from benchmarks.serving.scaling import Scaling, ScalingPoint, Sweep
from benchmarks.serving.scaling_report import write_scaling
from benchmarks.serving.soak import Soak, SoakPoint, read_soak


def test_the_report_opens_with_the_targets(results: Results) -> None:
    report = markdown(results)
    assert report.index("## Targets") < report.index("## mnist")
    assert "| MNIST, 64 connections: requests/s over tutorial-2 | ≥ 10 × | 12 × | 12 × – 12 × | yes |" in report
    assert "| … p99.9 | ≤ 30 ms | 40 ms |  | **no** |" in report
    assert "not measured: not in this run" in report


def test_the_report_holds_raw_against_multipart_and_batches_against_in_process(results: Results) -> None:
    assert "| ours-openvino-f32-2 | 4,500 | 4,950 | 1.10 | 6,000 | 80% | 7,200 | 96% |" in markdown(results)


def test_an_unfinished_run_says_so(results: Results) -> None:
    results.finished = False
    assert "**not finished**" in markdown(results)


def test_results_are_written_whole(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["workloads"][0]["name"] == "mnist"


def test_a_soak_reads_back_as_it_was_written(tmp_path: Path) -> None:
    soak = Soak("ours", "mnist", 64, "today", "abc", (SoakPoint(10, 200.0, 5.0, 0), SoakPoint(20, 201.5, 5.0, 0)))
    soak.write(tmp_path / "results" / "soak.json")
    assert read_soak(tmp_path / "results" / "soak.json") == soak
    assert (soak.requests, soak.growth_mb) == (10, 1.5)
    assert read_soak(tmp_path / "none.json") is None


def test_scaling_has_a_table_and_a_plot_for_each_sweep(results: Results, tmp_path: Path) -> None:
    ours = results.workloads[0].services[0]
    points = [ScalingPoint(load.connections, str(load.connections), ours.name, load) for load in ours.loads(64)]
    sweep = Sweep("connections", "connections", "MNIST", points, failures=["bare-2: it ended"])
    write_scaling(Scaling("python -m benchmarks scaling", results.machine, 4.0, [sweep]), tmp_path)
    report = (tmp_path / "scaling.md").read_text(encoding="utf-8")
    assert "| 64 | ours-openvino-f32-2 | 3,000 | 0.50 | 2.00 | 0 |" in report
    assert "Not measured: bare-2: it ended" in report
    assert "<svg" in (tmp_path / "scaling-connections.svg").read_text(encoding="utf-8")
