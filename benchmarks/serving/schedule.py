"""The order of a round: this project's service and the bounds that it is compared with, in rotation."""

from collections.abc import Sequence

from benchmarks.harness.contestant import Contestant
from benchmarks.serving.in_process import Pipeline

Turn = Contestant | Pipeline


def order(contestants: Sequence[Contestant], pipelines: Sequence[Pipeline], *, number: int, rounds: int) -> list[Turn]:
    """Return the turns of round `number` (from 0).

    The parts of the limit are adjacent: in process, this service on OpenVINO, the bare application, in reverse every
    second round. That block and the others rotate, so that none always comes first on a cool machine. On TensorFlow the
    in-process bound is measured once: no target depends on it.
    """
    core: list[Turn] = [pipeline for pipeline in pipelines if pipeline.engine == "openvino"]
    core += [each for each in contestants if each.group == "ours" and each.takes_bodies]
    core += [each for each in contestants if each.group == "ceiling"]
    if number % 2:
        core.reverse()
    if number == 0:
        core += [pipeline for pipeline in pipelines if pipeline.engine != "openvino"]
    others: list[list[Turn]] = [[each] for each in contestants if each not in core]
    blocks = [core, *others]
    first = number * max(1, len(blocks) // rounds) % len(blocks)
    return [turn for block in blocks[first:] + blocks[:first] for turn in block]
