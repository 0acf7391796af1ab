"""A canary beside replicas, by HAProxy with canary.cfg: its share, and what becomes of one that fails."""

import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.end_to_end.callers import Callers, address_of, free_port, post, until
from tests.end_to_end.draining import DrainingService
from tests.end_to_end.fleets import HaProxy, Statistics, haproxy, publish_again
from tests.end_to_end.stand_in import Behaviour, StandIn, badly, never, not_at_all, sometimes_badly, stand_in, well

STABLE, CANARY = "127.0.0.2", "127.0.0.3"
_SHARE = 0.05


def canaries(proxy: HaProxy) -> Statistics:
    return Statistics(proxy.operations, "canary")


@pytest.mark.chaos
def test_a_canary_of_another_version_gets_its_share(
    program: FindProgram, repository: Path, data_folder: Path, tmp_path: Path
) -> None:
    port = free_port()
    stores = [Path(shutil.copytree(repository / "model_store", tmp_path / name)) for name in (STABLE, CANARY)]
    publish_again(stores[1], 2)
    services = [DrainingService(store, host=store.name, port=port, engine="openvino") for store in stores]
    names = {"replica": {STABLE}, "canary": {CANARY}}
    request = post((data_folder / "7-00000.png").read_bytes())
    with haproxy(program("haproxy"), "canary.cfg", tmp_path, names, REPLICAS_PORT=port) as proxy:
        canaries(proxy).wait_for_servers(2)  # the replica is its backup
        with Callers(lambda: address_of(proxy.url), request, count=8) as callers:
            for _ in range(10):
                callers.wait_for_answers(1000)
    assert callers.failed == {}
    versions = Counter(json.loads(body)["model"]["version"] for body in callers.bodies.elements())
    share = versions[2] / versions.total()
    sys.stdout.write(f"\nversion 2 answered {share:.2%} of {versions.total()} requests\n")
    assert versions.keys() == {1, 2}
    assert abs(share - _SHARE) <= 0.01
    for service in services:
        assert service.stop() == 0


def without_a_canary(callers: Callers, canary: StandIn) -> bool:
    """Say whether of 200 answers none is the canary's: of that many at its share, some are."""
    asked = canary.asked
    callers.wait_for_answers(200)
    return canary.asked == asked


@pytest.mark.parametrize("behaviour", [badly, sometimes_badly, not_at_all, never])
def test_a_canary_that_fails_is_rolled_back_within_ten_seconds_and_for_good(
    program: FindProgram, tmp_path: Path, behaviour: Behaviour
) -> None:
    port = free_port()
    names = {"replica": {STABLE}, "canary": {CANARY}}
    with (
        stand_in((STABLE, port)),
        stand_in((CANARY, port)) as canary,
        haproxy(program("haproxy"), "canary.cfg", tmp_path, names, REPLICAS_PORT=port) as proxy,
    ):
        canaries(proxy).wait_for_servers(2)
        with Callers(lambda: address_of(proxy.url), post(b"picture"), count=32) as callers:
            until(lambda: canary.asked > 20)
            assert callers.failed == {}
            canary.behaviour, began = behaviour, time.monotonic()
            until(lambda: without_a_canary(callers, canary))
            took = time.monotonic() - began
            canary.behaviour, asked = well, canary.asked
            callers.wait_for_answers(1000)
            assert canary.asked == asked
    sys.stdout.write(f"\n{behaviour.__name__}: {callers.failed} of {callers.answered}, back after {took:.1f} s\n")
    assert took < 10


def test_a_canary_that_is_gone_costs_no_request(program: FindProgram, tmp_path: Path) -> None:
    port = free_port()
    names = {"replica": {STABLE}, "canary": {CANARY}}
    with (
        stand_in((STABLE, port)),
        haproxy(program("haproxy"), "canary.cfg", tmp_path, names, REPLICAS_PORT=port) as proxy,
    ):
        with stand_in((CANARY, port)):
            canaries(proxy).wait_for_servers(2)
        with Callers(lambda: address_of(proxy.url), post(b"picture"), count=8) as callers:
            callers.wait_for_answers(1000)
    assert callers.failed == {}
