"""The service with a defect: the first picture of each worker leaves a place behind, whose owner is never over.

`python -m tests.end_to_end.forgetful serve` is `python -m app serve` but for that.
"""

from app.__main__ import cli
from app.serving.admission import Admission, Lease, Owner


class NeverOver:
    def done(self) -> bool:
        return False


_enter = Admission.enter
_forgotten: list[Lease] = []


def enter(self: Admission, owner: Owner, pictures: int = 1, *, size: int = 0, explains: bool = False) -> Lease:
    if not _forgotten:
        _forgotten.append(_enter(self, NeverOver()))
    return _enter(self, owner, pictures, size=size, explains=explains)


Admission.enter = enter  # type: ignore[method-assign]
cli(prog_name="python -m app")
