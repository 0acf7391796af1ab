"""Serve with Ray Serve: serve run deploy.ray.serve_app:app model_store=/srv/model_store (docs/how-to/ray.md)."""

from math import ceil
from typing import Any

from fastapi import FastAPI
from ray import serve

from app.process.embedded import Embedded
from app.settings import Settings


class Replica(Embedded):
    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.application

    async def check_health(self) -> None:
        self.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {"load": self.load}


def replicas_for_the_queue(context: Any) -> tuple[int, dict[str, Any]]:
    return ceil(sum(context.aggregated_metrics.get("load", {}).values())), {}


def app(arguments: dict[str, Any]) -> serve.Application:
    scale = {name: int(arguments.pop(name, default)) for name, default in (("min_replicas", 1), ("max_replicas", 8))}
    settings = Settings.load(**{**arguments, "grpc_port": 0})
    deployment = serve.deployment(name="imageclass", health_check_period_s=2)(serve.ingress()(Replica)).options(
        max_ongoing_requests=2 * settings.max_pending,  # so that what exceeds max_pending gets the service's own 503
        max_queued_requests=settings.max_pending,
        ray_actor_options={"num_cpus": settings.inference_threads or 1},
        autoscaling_config={**scale, "policy": {"policy_function": replicas_for_the_queue}},
        logging_config={"enable_access_log": settings.access_log},
    )
    return deployment.bind(settings)
