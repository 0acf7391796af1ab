"""GET /models and /models/{name}: the served models, and how they were trained."""

from typing import Any

from fastapi import APIRouter

from app.api.openapi.schemas import ModelDetail, ModelList, error_responses
from app.api.routes.predict import ModelVersion
from app.engines.loading import LoadedModel
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier
from app.serving.tuning import Tuning


def model_routes(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(tags=["models"])

    def in_preview(model: Classifier) -> dict[str, Any]:
        """Return the other version that answers, if there is one."""
        preview = catalogue.in_preview(model.name)
        return {} if preview is None or preview is model else {"preview": _summary(preview)}

    @router.get("/models", summary="The served models", response_model=ModelList, response_model_exclude_unset=True)
    async def models() -> dict[str, Any]:
        return {"models": [{**_summary(model), **in_preview(model)} for model in catalogue.models]}

    @router.get(
        "/models/{name}",
        summary="One model: labels, metrics, preprocessing, card",
        response_model=ModelDetail,
        response_model_exclude_unset=True,
        responses=error_responses(404),
    )
    async def model(name: str, version: ModelVersion = None) -> dict[str, Any]:
        found = catalogue.get(name, None if version is None else str(version))
        manifest = found.manifest
        return {
            **_summary(found),
            **in_preview(found),
            "serving": serving(found.loaded, found.tuning),
            "created_at": manifest.created_at.isoformat(),
            "preprocessing": manifest.preprocessing,
            "training": manifest.training,
            "libraries": manifest.libraries,
            "card": found.card,
        }

    return router


def serving(loaded: LoadedModel, tuning: Tuning) -> dict[str, Any]:
    """Return `Serving` as a dictionary."""
    return {
        "engine": loaded.engine.name,
        "engine_reason": loaded.reason,
        "precision": loaded.precision,
        "precision_reason": loaded.precision_reason,
        "threads": loaded.threads,
        "batch_milliseconds": {str(size): round(taken * 1000, 4) for size, taken in tuning.batch_seconds.items()},
        "inference": "event loop" if tuning.on_event_loop else "thread",
        "inline_decode_pixels": tuning.inline_decode_pixels,
    }


def _summary(model: Classifier) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "labels": list(manifest.labels),
        "metrics": manifest.metrics,
    }
