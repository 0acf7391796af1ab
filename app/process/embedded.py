"""The service in a process that another system starts, watches and ends, as a replica of Ray Serve."""

from app.api.lifecycle import Lifecycle
from app.main import self_check, worker_app
from app.metrics import Metrics
from app.settings import Settings


class Embedded:
    """One worker without our server and supervisor: the application, its health, and its load."""

    def __init__(self, settings: Settings) -> None:
        """Load the models. Raises an ImageclassError that says why there is nothing to serve."""
        self._metrics = Metrics()
        self.application = worker_app(settings, self._metrics, Lifecycle())
        self._admission = self.application.state.inference.admission
        self._self_check = self_check(settings, self._admission, self._metrics)
        self._metrics.set_ready(ready=True)

    def check(self) -> None:
        """Give a heartbeat; call this at least every five seconds. Raises RuntimeError if this process is stuck."""
        self._metrics.sign_of_life()
        if reason := self._self_check.look():
            raise RuntimeError(reason)

    @property
    def load(self) -> float:
        """The held pictures, as a multiple of those that keep this process fully busy."""
        return float(self._admission.pending / self._admission.enough)
