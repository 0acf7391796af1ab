"""Where a worker stands between its start and its end, for those whose answers depend on it."""


class Lifecycle:
    """Both are set once and stay.

    `stopping`: this worker takes no new clients, and each of its answers closes its connection, so that those it has
    go elsewhere. `service_stopping`: so do all others, and the service is not ready any more.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.service_stopping = False
