"""GET /health, /health/ready and /health/live: the truth about this process, for people and for load balancers."""

from typing import Any

from fastapi import APIRouter

from app.api.schemas import Health, Live, error_responses
from app.errors import ShuttingDown
from app.serving.catalogue import Catalogue


def health_routes(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/health", summary="Ready, and with what", response_model=Health, responses=error_responses(503))
    @router.get("/health/ready", summary="The same", response_model=Health, responses=error_responses(503))
    async def ready() -> dict[str, Any]:
        """200 while this process takes requests, 503 while it stops."""
        if catalogue.stopping:
            raise ShuttingDown("The service is stopping.")
        return {
            "status": "ok",
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
                {"name": refusal.name, "version": refusal.version, "code": refusal.code}
                for refusal in catalogue.refusals
            ],
        }

    @router.get("/health/live", summary="The process answers", response_model=Live)
    async def live() -> dict[str, str]:
        """200 as long as the process can answer at all."""
        return {"status": "live"}

    return router
