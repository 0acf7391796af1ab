"""Prose uses plain words: tests/language.py lists those to avoid, each with a better one."""

from pathlib import Path

from tests import language


def test_prose_uses_plain_words(repository: Path) -> None:
    assert language.found(repository) == []
