"""Whether a worker or the whole service is stopping, for answers that depend on it."""


class Lifecycle:
    """Both are set once and never cleared.

    `stopping`: this worker accepts no new connections, and each answer closes its connection, so that clients move to
    other workers. `service_stopping`: all workers do, and the service is not ready any more.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.service_stopping = False
