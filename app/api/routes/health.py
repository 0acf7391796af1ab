"""GET /health, /health/ready and /health/live: the service's state, for people and for load balancers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from app.api.lifecycle import Lifecycle
from app.api.openapi.schemas import Health, Live, error_responses
from app.errors import ShuttingDown
from app.metrics import Metrics
from app.object_storage.mirror import StoreHealth
from app.serving.catalogue import Catalogue


def health_routes(
    catalogue: Catalogue,
    *,
    lifecycle: Lifecycle,
    metrics: Metrics,
    workers: int,
    store_health: Callable[[], StoreHealth] | None,
) -> APIRouter:
    """`workers` is the wanted number; `metrics` knows how many are ready. `store_health` is for a store in a bucket."""
    router = APIRouter(tags=["health"])

    options: dict[str, Any] = {
        "response_model": Health,
        "response_model_exclude_unset": True,
        "responses": error_responses(503),
    }

    @router.get("/health", summary="Readiness, with the models and workers", **options)
    @router.get("/health/ready", summary="The same as /health", **options)
    async def ready() -> dict[str, Any]:
        """200 while the service accepts requests, 503 as soon as it begins to stop."""
        ready = require_ready(lifecycle, metrics)
        return {
            "status": "ok",
            "workers": {"configured": workers, "ready": ready},
            "models": [
                {
                    "name": model.manifest.name,
                    "version": model.manifest.version,
                    "engine": model.loaded.engine.name,
                    "engine_reason": model.loaded.reason,
                    "precision": model.loaded.precision,
                    "age_seconds": round(model.age_s, 3),
                }
                for model in catalogue.models
            ],
            "refused": [
                {"name": rejection.name, "version": rejection.version, "code": rejection.code}
                for rejection in catalogue.rejections
            ],
            **({} if store_health is None else {"store": asdict(store_health())}),
        }

    @router.get("/health/live", summary="Liveness", response_model=Live)
    async def live() -> dict[str, str]:
        """200 as long as the process can answer."""
        return {"status": "live"}

    return router


def require_ready(lifecycle: Lifecycle, metrics: Metrics) -> int:
    """Return how many workers are ready. Raises ShuttingDown if the service accepts no requests."""
    ready = metrics.workers_ready()
    if lifecycle.service_stopping:
        raise ShuttingDown("The service is stopping. Send requests to another instance.")
    if lifecycle.stopping and not ready:
        raise ShuttingDown("The worker is being replaced, and no other is ready. Ask again in a moment.")
    return ready
