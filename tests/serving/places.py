"""Places of an admission that a test's task holds."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.serving.admission import Admission, this_task


@contextmanager
def places(admission: Admission, pictures: int = 1) -> Iterator[None]:
    """Hold the places of `pictures` while the block of this task runs. Raises Overloaded if there are too few."""
    lease = admission.enter(this_task(), pictures)
    try:
        yield
    finally:
        lease.end()
