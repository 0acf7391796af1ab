"""What photo runs, and others, are told by their figures alone: no training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from training.data.preprocessing import PictureKind
from training.diagnosis import Answers, Facts, Problem, diagnose
from training.options import read_fit_options

PHOTOS, SMALL = PictureKind(240, 320, has_colour=True), PictureKind(100, 100, has_colour=True)
DIGITS = PictureKind(28, 28, has_colour=False)


def facts_of(
    preset: str,
    *,
    train: float,
    validation: float,
    losses: Sequence[float] = (),
    head: float | None = None,
    counts: Sequence[int] = (300,) * 10,
    pictures: PictureKind = PHOTOS,
    surest_wrong: float = 0.0,
    held_out: int = 400,
    **given: Any,
) -> Facts:
    """Return the facts of a run on as many pictures of each class as `counts` has.

    `surest_wrong` is the share of wrong answers among the surest half of those to the held-out pictures.
    """
    wrong = np.zeros(held_out, np.bool_)
    wrong[: round(surest_wrong * held_out / 2)] = True
    wrong[held_out // 2 : held_out // 2 + round((1 - validation) * held_out) - wrong.sum()] = True
    confidence = np.linspace(1, 0.1, held_out, dtype=np.float32)
    return Facts(
        options=read_fit_options({"effort": None, "data": "clothes", "name": "c", "preset": preset, **given}),
        counts={"train": {str(k): count for k, count in enumerate(counts)}, "validation": {}, "test": {}},
        pictures=pictures,
        epochs=[{"loss": loss, "accuracy": train, "validation_loss": None} for loss in losses],
        head_accuracy=head,
        scores={
            "train": {"accuracy": train, "loss": 0.1, "pictures": sum(counts)},
            "validation": {"accuracy": validation, "loss": 0.6, "pictures": held_out},
            "test": None,
        },
        audit={},
        answers=Answers(confidence, ~wrong),
    )


def told(preset: str, **facts: Any) -> list[tuple[str, str]]:
    """Return name and command, after `fit --data clothes --name c`, of what such a run is told."""
    return [(problem.name, what_follows(problem)) for problem in diagnose(facts_of(preset, **facts))]


def what_follows(problem: Problem) -> str:
    return problem.next.command().removeprefix("python -m training fit --data clothes --name c ")


def test_features_alone_are_told_what_fine_tuning_gained_and_nothing_else() -> None:
    (problem,) = diagnose(facts_of("photos_quick", train=0.98, validation=0.89, head=0.89))
    assert problem.name == "a better preset"
    assert "on 3,068 photos of clothes" in problem.advice
    assert what_follows(problem) == "--preset photos --test 0.2 --seed 0"


@pytest.mark.parametrize(("counts", "epochs"), [((20,) * 10, 20), ((60,) * 10, 10)])
def test_features_alone_of_few_pictures_are_told_the_epochs_that_the_choice_gives(
    counts: tuple[int, ...], epochs: int
) -> None:
    problems = dict(told("photos_quick", train=1.0, validation=0.83, head=0.83, counts=counts))
    assert problems["a better preset"] == f"--preset photos --epochs {epochs} --test 0.2 --seed 0"


def test_many_small_photos_are_told_the_network_that_learns_from_nothing() -> None:
    (problem,) = diagnose(facts_of("photos_quick", train=0.98, validation=0.93, head=0.93, pictures=SMALL))
    assert "of 2,062 hands of 100x100 pixels it had 99.5 % right" in problem.advice
    assert what_follows(problem) == "--preset photos_from_scratch --test 0.2 --seed 0"


def test_a_healthy_fine_tuning_is_told_nothing() -> None:
    assert told("photos", train=0.999, validation=0.935, head=0.89, losses=(0.9, 0.7, 0.6)) == []
    assert told("photos_quick", train=1.0, validation=0.98, head=0.98) == []


def test_fine_tuning_for_too_few_epochs_is_told_the_epochs_of_the_preset() -> None:
    problems = told("photos", train=0.95, validation=0.88, head=0.89, losses=(1.2,), epochs=1)
    assert problems == [("a better preset", "--preset photos --epochs 3 --test 0.2 --seed 0")]


def test_another_preset_keeps_what_was_changed_of_the_old_one_if_it_suits() -> None:
    """Of another network's recipe, what is said of the data; of the same backbone's, all but the epochs."""
    given = {
        "epochs": 2,
        "learning_rate": 0.01,
        "size": "64",
        "colour": "rgb",
        "class_weights": "balanced",
        "group_by": "runs",
    }
    ((_, command),) = told("seed", train=0.6, validation=0.5, losses=(2.0, 1.5), **given)
    assert command == "--preset photos --class-weights balanced --test 0.2 --seed 0 --group-by runs"
    ((_, command),) = told("photos_quick", train=0.98, validation=0.89, head=0.89, batch_size="16", size="160")
    assert command == "--preset photos --batch-size 16 --test 0.2 --size 160x160 --seed 0"


@pytest.mark.parametrize("preset", ["seed", "quick", "photos_from_scratch", "accurate"])
@pytest.mark.parametrize(
    ("train", "losses", "surest_wrong"), [(0.19, [2.32], 0.83), (0.57, [2.1, 1.8, 1.5], 0.3), (0.98, [1.5, 0.1], 0.2)]
)
def test_photos_learned_from_nothing_are_told_the_preset_for_photos_alone(
    preset: str, train: float, losses: list[float], surest_wrong: float
) -> None:
    validation = min(train, 0.57)
    problems = told(preset, train=train, validation=validation, losses=losses, surest_wrong=surest_wrong)
    assert problems == [("a better preset", "--preset photos --test 0.2 --seed 0")]


def test_few_photos_learned_from_nothing_are_told_the_choice_for_few() -> None:
    (problem,) = diagnose(facts_of("seed", train=0.87, validation=0.4, losses=(2.3, 0.7), counts=(30,) * 10))
    assert "on 300 photos of clothes its features alone raised the test accuracy from 35 % to 83 %" in problem.advice
    assert what_follows(problem) == "--preset photos --epochs 10 --test 0.2 --seed 0"


def test_grey_drawings_are_not_told_the_preset_for_photos() -> None:
    problems = told("seed", train=0.99, validation=0.8, losses=(0.5, 0.2, 0.19), pictures=DIGITS)
    assert "a better preset" not in dict(problems)


def test_grey_drawings_in_the_preset_for_photos_are_told_the_one_for_drawings() -> None:
    problems = told("photos_quick", train=1.0, validation=0.94, head=0.94, pictures=DIGITS)
    assert problems == [("a better preset", "--preset compact --test 0.2 --seed 0")]


def test_fine_tuning_that_is_worse_than_what_it_began_with_is_told_to_keep_that() -> None:
    problems = diagnose(facts_of("photos", train=0.92, validation=0.5, head=0.74, losses=(0.76, 0.94, 0.97)))
    assert [(problem.name, what_follows(problem)) for problem in problems] == [
        ("fine-tuning does harm", "--preset photos_quick --test 0.2 --seed 0")
    ]
    assert "right on 74.0% of 400 validation pictures; after 3 epochs it is on 50.0%" in problems[0].evidence


def test_fine_tuning_at_too_high_a_rate_is_told_the_rate_of_the_preset() -> None:
    for losses, validation in (((9.1, 3.0, 3.2), 0.1), ((1.9, 1.5, 1.2), 0.6)):
        problems = told("photos", train=validation, validation=validation, head=0.8, losses=losses, learning_rate=0.005)
        assert problems[0] == ("learning rate too high", "--preset photos --learning-rate 0.0005 --test 0.2 --seed 0")


@pytest.mark.parametrize("pictures", [PHOTOS, DIGITS])
def test_a_rate_is_not_too_high_after_one_epoch_or_a_few_steps(pictures: PictureKind) -> None:
    for losses in ((2.32,), (2.33, 2.31)):
        found = told("seed", train=0.11, validation=0.1, losses=losses, counts=(30,) * 10, pictures=pictures)
        assert "learning rate too high" not in dict(found)


@pytest.mark.parametrize(("preset", "losses"), [("photos_quick", ()), ("photos", (1.8, 1.2, 0.9))])
def test_wrong_labels_of_photos_are_told_if_the_model_is_able(preset: str, losses: Sequence[float]) -> None:
    problems = diagnose(facts_of(preset, train=0.9, validation=0.6, head=0.6, losses=losses, surest_wrong=0.35))
    assert [problem.name for problem in problems] == ["label noise"]


@pytest.mark.parametrize("train", [0.57, 0.64])
@pytest.mark.parametrize("pictures", [PHOTOS, DIGITS])
def test_a_model_that_is_wrong_on_its_own_training_pictures_says_nothing_of_labels(
    train: float, pictures: PictureKind
) -> None:
    """Not of the kinds of pictures that it is for, nor of others."""
    for preset in ("seed", "photos"):
        facts = facts_of(
            preset, train=train, validation=0.55, losses=(1.5, 1.1, 1.0, 0.99), surest_wrong=0.4, pictures=pictures
        )
        assert "label noise" not in [problem.name for problem in diagnose(facts)]


@pytest.mark.parametrize(("counts", "weighs"), [((6,) * 10, False), ((20, 8), False), ((24, 8), True)])
def test_small_classes_are_told_to_weigh_alike_only_if_others_are_larger(counts: tuple[int, ...], weighs: bool) -> None:
    problems = diagnose(facts_of("photos_quick", train=1.0, validation=0.97, head=0.97, counts=counts))
    (problem,) = [problem for problem in problems if problem.name == "too little data for a class"]
    assert ("give all classes the same weight" in problem.advice) is weighs
    assert ("--class-weights balanced" in what_follows(problem)) is weighs


def test_another_recipe_is_told_beside_what_the_user_changed_alone() -> None:
    problems = told("photos", train=0.99, validation=0.8, head=0.8, losses=(0.9, 0.7), held_out=20, mixup=0.2)
    assert problems == [
        ("validation set too small", "--preset photos --mixup 0.2 --validation 0.2 --test 0.2 --seed 0")
    ]
