"""Pauses of a load beside a thread that serves."""

import threading
import time

import pytest

from app.serving.pauses import LoadPauses


def work(seconds: float) -> None:
    """Compute in this thread for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def waits_of_a_load_while_this_thread(serves: bool, *, step_s: float = 0.02) -> list[float]:
    """Return the waits of two steps; this thread is the one that serves."""
    waits: list[float] = []
    pauses = LoadPauses(threading.get_ident(), waits.append)
    for _ in range(2):
        if serves:
            work(step_s)
        else:
            time.sleep(step_s)
        pauses.pause()
    return waits


def test_a_load_waits_for_twice_as_long_as_each_step_took_if_requests_were_answered() -> None:
    waits = waits_of_a_load_while_this_thread(serves=True)

    assert len(waits) == 2
    assert min(waits) >= 0.04


def test_a_load_of_an_idle_service_does_not_wait() -> None:
    assert waits_of_a_load_while_this_thread(serves=False) == []


def test_a_wait_after_a_long_step_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serving.pauses._LONGEST_S", 0.03)

    assert waits_of_a_load_while_this_thread(serves=True) == [0.03, 0.03]
