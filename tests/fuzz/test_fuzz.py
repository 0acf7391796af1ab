"""The bounded run of the fuzzer, the same inputs every time; CONTRIBUTING.md has the command for a long one."""

from pathlib import Path

import pytest

from tests.api.http1.generated import generators
from tests.fuzz.connections import connection, generated
from tests.fuzz.fuzzer import Defect, Fuzzer
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_some_thousands_of_damaged_inputs_find_no_defect(name: str) -> None:
    target, seeds = TARGETS[name]
    fuzzer = Fuzzer(target, seeds(), seed=1)
    first = len(fuzzer.corpus)
    fuzzer.run(inputs=2000 if name == "connection" else 4000)
    assert len(fuzzer.corpus) > first


def test_no_generated_requests_find_a_defect_in_a_connection(examples: int) -> None:
    outcomes = {connection(generated(rng)) for rng in generators(examples // 4)}
    assert len(outcomes) > 20  # or they would show nothing


def test_an_input_that_takes_another_way_is_kept_and_the_next_run_begins_with_it(tmp_path: Path) -> None:
    target, seeds = TARGETS["form"]
    fuzzer = Fuzzer(target, seeds()[:1], seed=1, folder=tmp_path)
    fuzzer.run(inputs=300)
    assert {file.read_bytes() for file in tmp_path.iterdir()} == set(fuzzer.corpus)
    assert len(Fuzzer(target, seeds()[:1], seed=2, folder=tmp_path).corpus) >= len(fuzzer.corpus) - 1


def test_a_defect_is_reported_with_the_input_that_shows_it() -> None:
    def fails_on_a_b(data: bytes) -> str:
        assert b"b" not in data
        return "fine"

    with pytest.raises(Defect) as found:
        Fuzzer(fails_on_a_b, [b"a"], seed=1).run(inputs=100_000)
    assert b"b" in found.value.data
