import json

import numpy as np
import pytest

from benchmarks.harness.protocol_requests import label_in, parts, with_lengths

LABELS = ("cat", "dog", "hen")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (json.dumps({"label": "dog"}).encode(), "dog"),
        (json.dumps([{"label": "hen"}]).encode(), "hen"),
        (b'{"outputs":[{"name":"probabilities"}]}' + np.array([[0.1, 0.2, 0.7]], "<f4").tobytes(), "hen"),
        (b'{"outputs":[{}]}', "not our JSON"),
        (b"{}\x00", "neither JSON nor probabilities"),
    ],
)
def test_a_label_is_read_from_every_kind_of_answer(answer: bytes, label: str) -> None:
    assert label_in(answer, LABELS) == label


def test_parts_cover_all_pictures_and_start_over_at_their_end() -> None:
    assert parts([b"a", b"b", b"c"], 2) == [[b"a", b"b"], [b"c", b"a"]]


def test_a_tensor_has_the_length_before_each_picture() -> None:
    assert with_lengths([b"ab", b""]) == b"\x02\x00\x00\x00ab\x00\x00\x00\x00"
