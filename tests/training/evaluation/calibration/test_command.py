"""Calibration as users of `fit` and `evaluate` meet it."""

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.contract.bundle import Bundle, open_bundle
from app.contract.preprocessing import decode
from training.__main__ import cli

FIT = (
    "fit --preset seed --data digits --name d --epochs 1 --batch-size 16 --validation 0.2 --no-report "
    "--group-by /0*([0-9]+)[0-9]{2}"
)


def run(arguments: str) -> Result:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle, Result]:
    """The same network calibrated and not, and what was said of the first."""
    store = tmp_path_factory.mktemp("store")
    done = run(f"{FIT} --model-store {store}")
    run(f"{FIT} --model-store {store} --calibration none --min-precision 0.99 --keep-thumbnails")
    return open_bundle(store / "d" / "1"), open_bundle(store / "d" / "2"), done


def found(bundle: Bundle) -> Any:
    return bundle.metrics()["calibration"]


def test_the_temperature_is_recorded_and_said(fitted: tuple[Bundle, Bundle, Result]) -> None:
    bundle, _, done = fitted
    record = bundle.manifest.training["calibration"]
    assert isinstance(record, dict)
    assert record["method"] == "temperature"
    assert record["fitted_on"] == found(bundle)["validation"]["after"]["pictures"]
    assert record == {name: found(bundle)[name] for name in record}
    assert f"logits / {record['temperature']:.3f}" in done.stderr


def test_the_held_out_pictures_say_what_is_familiar(fitted: tuple[Bundle, Bundle, Result]) -> None:
    for bundle in fitted[:2]:
        trust, golden = bundle.trust, bundle.golden
        assert trust is not None
        assert trust.held_out == found(bundle)["validation"]["after"]["pictures"]
        features = golden.other_outputs["features"]
        logits = features @ trust.kernel + trust.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        # The last layer in trust.npz is the served one, temperature included.
        assert powers / powers.sum(axis=1, keepdims=True) == pytest.approx(golden.probabilities, abs=0.01)
        assert np.median([trust.familiarity(row).overall for row in features]) > 0.1


def test_training_pictures_are_kept_if_asked_for(fitted: tuple[Bundle, Bundle, Result]) -> None:
    private, shown, _ = fitted
    assert private.trust is not None
    assert shown.trust is not None
    features = shown.golden.other_outputs["features"][0]
    assert all(near.thumbnail is None for near in private.trust.neighbours(features))
    for near in shown.trust.neighbours(features):
        assert near.thumbnail is not None
        picture = decode(near.thumbnail, shown.manifest.preprocessing)
        assert picture.shape[:2] == shown.manifest.preprocessing.shape[:2]


def test_the_served_model_is_the_uncalibrated_one_at_that_temperature(fitted: tuple[Bundle, Bundle, Result]) -> None:
    calibrated, plain, _ = fitted
    power = plain.golden.probabilities.astype(np.float64) ** (1 / found(calibrated)["temperature"])
    expected = power / power.sum(axis=1, keepdims=True)
    assert calibrated.golden.probabilities == pytest.approx(expected, abs=1e-5)
    assert "--calibration none" in str(plain.manifest.training["command"])
    assert "--calibration" not in str(calibrated.manifest.training["command"])


def test_the_figures_before_are_those_of_the_uncalibrated_model(fitted: tuple[Bundle, Bundle, Result]) -> None:
    calibrated, plain, _ = fitted
    assert found(plain)["test"]["before"] is None
    for split in ("validation", "test"):
        before, after = found(calibrated)[split]["before"], found(plain)[split]["after"]
        for figure in ("accuracy", "nll", "brier", "confidence"):
            assert before[figure] == pytest.approx(after[figure], abs=1e-5)


def test_the_validation_pictures_are_likelier_after(fitted: tuple[Bundle, Bundle, Result]) -> None:
    validation = found(fitted[0])["validation"]
    assert validation["after"]["nll"] < validation["before"]["nll"]
    assert validation["after"]["accuracy"] == validation["before"]["accuracy"]


def test_groups_have_their_figures(fitted: tuple[Bundle, Bundle, Result]) -> None:
    figures = found(fitted[0])["test"]["after"]
    assert sum(row["pictures"] for row in figures["groups"]) <= figures["pictures"]


def test_the_card_tells_how_far_the_probabilities_can_be_trusted(fitted: tuple[Bundle, Bundle, Result]) -> None:
    calibrated, plain, _ = fitted
    thresholds = found(calibrated)["test"]["after"]["thresholds"]
    assert f"logits / {found(calibrated)['temperature']:.3f}" in calibrated.card()
    assert f"| 0.9 | {thresholds[5]['coverage']:.2%} | {thresholds[5]['accuracy']:.2%} |" in calibrated.card()
    assert "softmax as trained: as asked for" in plain.card()


def test_evaluate_shows_both_and_a_table_of_thresholds(fitted: tuple[Bundle, Bundle, Result]) -> None:
    bundle, _, _ = fitted
    command = f"evaluate --data digits --model d --version 1 --model-store {bundle.path.parents[1]} --engine tensorflow"
    shown = run(command).stdout
    assert "uncalibrated" in shown
    assert "perfectly calibrated" in shown
    assert "answer from" in shown
    measured = json.loads(run(f"{command} --json").stdout)["calibration"]
    recorded = found(bundle)["test"]
    assert measured["before"]["nll"] == pytest.approx(recorded["before"]["nll"], abs=1e-6)
    assert measured["after"]["debiased"] == pytest.approx(recorded["after"]["debiased"], abs=1e-6)


def test_without_validation_pictures_the_softmax_is_left_as_it_is(trained_store: Any) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    assert found(bundle)["method"] == "none"
    assert "no validation pictures" in found(bundle)["reason"]
    assert found(bundle)["test"]["after"]["pictures"] == bundle.metrics()["test"]["pictures"]


def test_a_precision_becomes_a_minimum_probability_of_the_bundle(fitted: tuple[Bundle, Bundle, Result]) -> None:
    without, bundle, _ = fitted
    assert without.manifest.min_probability is None
    minimum = bundle.manifest.min_probability
    assert minimum is not None
    found = bundle.metrics()["sureness"]
    assert (found["min_precision"], found["min_probability"]) == (0.99, minimum)
    assert found["validation"]["precision"] >= 0.99
    assert 0 < found["test"]["coverage"] <= 1
    assert f"Answers below a probability of {minimum:g} are called unsure." in bundle.card()
    assert "--min-precision 0.99" in str(bundle.manifest.training["command"])
