"""What the accuracy benchmark says of its runs."""

from dataclasses import replace

import pytest

from benchmarks.training.accuracy import Run, markdown, summarize

RUN = Run("tutorial", 0, 0.99, 121_930, 100.0, 130.0, (20.0, 10.0, 14.0), 0.1)


def test_the_mean_has_students_interval_over_the_seeds() -> None:
    runs = [replace(RUN, seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.990, 0.991, 0.992))]
    summary = summarize(runs)[0]
    assert summary.accuracy == pytest.approx(0.991)
    assert summary.margin == pytest.approx(4.3027 * 0.001 / 3**0.5, rel=1e-4)
    assert summary.least == 0.990


def test_time_is_beside_the_tutorials_of_the_same_runs() -> None:
    runs = [RUN, replace(RUN, seconds=120.0), replace(RUN, name="quick", seconds=5.5)]
    tutorial, quick = summarize(runs)
    assert (tutorial.ratio, quick.ratio) == (1, 0.05)


def test_an_epochs_time_leaves_out_the_first_which_has_the_tracing() -> None:
    assert summarize([RUN])[0].epoch == 12
    assert summarize([replace(RUN, epochs=(20.0,))])[0].epoch == 20


def test_without_the_tutorial_or_a_second_seed_nothing_is_claimed() -> None:
    summary = summarize([replace(RUN, name="quick")])[0]
    assert summary.ratio is None
    assert summary.margin is None
    assert "| quick | 1 | 99.000 | 99.00 | 121,930 | 100.0 | – | 130 | 12.00 |" in markdown([summary], [])
