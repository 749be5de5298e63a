"""What a server says of itself: its model, whether it is ready, and how busy it is."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from nanochat.serve.api_errors import ApiError, json_response
from nanochat.serve.service import ServedModel, Service

_READ: Final = ["GET", "HEAD"]


def status_router(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> Response:
        return json_response({"object": "list", "data": [_model_line(service.model)]})

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        found = service.model
        if name != found.id:
            raise ApiError(
                404, f"this server has the model {found.id!r}", param="model", code="model_not_found"
            )
        return json_response(_model_line(found))

    @router.api_route("/health", methods=_READ, include_in_schema=False)
    async def health() -> Response:
        if service.healthy:
            return json_response({"status": "ok", "ready": True, **_workers(service)})
        status = "failed" if service.state == "ready" else service.state
        return json_response({"status": status, "ready": False}, 503, {"retry-after": "2"})

    @router.get("/stats")
    async def stats() -> Response:
        model = service.model
        loads = service.desk.loads
        workers = [{"gpu_id": number, "device": device} for number, device in enumerate(model.devices)]
        busy = sum(load > 0 for load in loads.values())
        counts = {"total_workers": len(workers), "available_workers": len(loads) - busy, "busy_workers": busy}
        return json_response({**counts, "workers": workers})

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _model_line(model: ServedModel) -> dict[str, object]:
    line = {"id": model.id, "object": "model", "created": model.created, "owned_by": "nanochat"}
    return line | {"max_model_len": model.context_tokens}


def _workers(service: Service) -> dict[str, int]:
    loads = service.desk.loads
    return {"num_gpus": len(loads), "available_workers": sum(not load for load in loads.values())}
