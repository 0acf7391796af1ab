"""Routes about one model: each exists once for the live version, and once for a named version."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from app.api.openapi.schemas import error_responses

ModelName = Annotated[str, Path(description="The model's name.")]
ModelVersion = Annotated[str, Path(description="The model's version; only the live one, and one in preview, answer.")]
Answer = Callable[[Request, str, str | None], Awaitable[Any]]

MODEL_PATHS = ("{model}", "{model}/versions/{version}")
"""A model's live version, and a named one."""


def model_and_version(names: Sequence[str]) -> tuple[str, str | None]:
    """Return the model, and the version or None, from the names in one of `MODEL_PATHS`."""
    model, *version = names
    return model, version[0] if version else None


class ModelRoutes:
    """Adds routes to `router` below `root`, such as "/v2/models"."""

    def __init__(self, router: APIRouter, root: str) -> None:
        self._router = router
        self._root = root

    def add(
        self,
        method: str,
        suffix: str,
        answer: Answer,
        summary: str,
        schema: Any,
        *statuses: int,
        responses: dict[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        """`answer` gets the model's name, and the version or None; `statuses` are those of its errors."""

        async def of_model(request: Request, model: ModelName) -> Any:
            return await answer(request, model, None)

        async def of_version(request: Request, model: ModelName, version: ModelVersion) -> Any:
            return await answer(request, model, version)

        endpoints: tuple[Callable[..., Any], ...] = (of_model, of_version)
        for path, endpoint in zip(MODEL_PATHS, endpoints, strict=True):
            self._router.add_api_route(
                f"{self._root}/{path}{suffix}",
                endpoint,
                methods=[method],
                name=answer.__name__,
                summary=summary,
                description=answer.__doc__ or "",
                response_model=schema,
                responses={**error_responses(*statuses), **(responses or {})},
                **options,
            )
