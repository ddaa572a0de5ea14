"""Models, health, readiness, metrics, and the page that describes the API."""

import time

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from openltx.serve.context import Here, caller
from openltx.serve.page import page
from openltx.serve.problems import ApiError
from openltx.serve.views import ModelObject, model_object

router = APIRouter(tags=["service"])

SILENCE_SECONDS = 10.0  # of a worker that counts as ready


@router.get("/v1/models", dependencies=[Depends(caller)])
def models(context: Here) -> JSONResponse:
    """The model that is served; none before it was loaded for the first time."""
    card = context.workers.model(context.settings.model)
    return JSONResponse({"object": "list", "data": [] if card is None else [model_object(card)]})


@router.get("/v1/models/{model}", response_model=ModelObject, dependencies=[Depends(caller)])
def model(model: str, context: Here) -> JSONResponse:
    """The model of this name."""
    card = context.workers.model(context.settings.model)
    if card is None or card.name != model:
        raise ApiError(404, "There is no such model here.", code="model_not_found", param="model")
    return JSONResponse(model_object(card))


@router.get("/healthz")
def health() -> JSONResponse:
    """The web process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
def ready(context: Here) -> JSONResponse:
    """The model is loaded, and its worker alive."""
    now = time.time()
    if any(worker.state == "ready" and now - worker.beat_at < SILENCE_SECONDS for worker in context.workers.all()):
        return JSONResponse({"status": "ready"})
    raise ApiError(503, "No worker is ready.", code="not_ready", headers={"Retry-After": "2"})


@router.get("/metrics", response_class=Response, dependencies=[Depends(caller)])
def metrics(context: Here) -> Response:
    """For Prometheus."""
    return Response(context.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """The API as a page, without scripts, for people who are offline."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": _STYLE_ONLY})


_STYLE_ONLY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
