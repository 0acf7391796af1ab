"""Where a worker stands between its start and its end, for those whose answers depend on it."""


class Lifecycle:
    """`stopping` is set once, when the worker has been told to stop: from then on it is not ready, and each of its
    answers closes its connection, so that clients go elsewhere before the listener closes."""

    def __init__(self) -> None:
        self.stopping = False
