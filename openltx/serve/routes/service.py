"""Models, health, readiness, metrics, and the page that describes the API."""

import time
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from openltx.serve.bodies import read_body
from openltx.serve.context import Caller, Context, Here, caller
from openltx.serve.orders import preview_order
from openltx.serve.page import page
from openltx.serve.problems import ApiError
from openltx.serve.routes.videos import body_schema
from openltx.serve.store.keys import Key
from openltx.serve.store.workers import ModelCard
from openltx.serve.views import JSONAnswer, ModelObject, PlanObject, model_object

router = APIRouter(tags=["service"])

SILENCE_SECONDS = 10.0  # of a worker that counts as ready


@router.get("/v1/models", dependencies=[Depends(caller)])
async def models(context: Here) -> JSONAnswer:
    """The model that is served; none before it was loaded for the first time."""
    card = await context.look(context.workers.model, context.settings.source)
    return JSONAnswer({"object": "list", "data": [] if card is None else [_shown(context, card)]})


@router.get("/v1/models/{model}", response_model=ModelObject, dependencies=[Depends(caller)])
async def model(model: str, context: Here) -> JSONAnswer:
    """The model of this name."""
    card = await context.look(context.workers.model, context.settings.source)
    if card is None or card.name != model:
        raise ApiError(404, "There is no such model here.", code="model_not_found", param="model")
    return JSONAnswer(_shown(context, card))


@router.post("/v1/plan", response_model=PlanObject, openapi_extra=body_schema("new", None))
async def plan(request: Request, context: Here, key: Caller) -> JSONAnswer:
    """What a request to POST /v1/videos would take: seconds, memory and the queue before it. Nothing is begun."""
    values, files = await read_body(request)
    if files:
        raise ApiError(
            400, "A plan looks at no files. Name them by their ids, or leave them out.", code="invalid_value"
        )
    return JSONAnswer(await run_in_threadpool(_planned, context, key, values))


@router.get("/healthz")
async def health() -> JSONAnswer:
    """The web process answers."""
    return JSONAnswer({"status": "ok"})


@router.get("/readyz")
async def ready(context: Here) -> JSONAnswer:
    """The model is loaded, and its worker alive."""
    now, workers = time.time(), await context.look(context.workers.all)
    if any(worker.state == "ready" and now - worker.beat_at < SILENCE_SECONDS for worker in workers):
        return JSONAnswer({"status": "ready"})
    raise ApiError(503, "No worker is ready.", code="not_ready", headers={"Retry-After": "2"})


@router.get("/metrics", response_class=Response, dependencies=[Depends(caller)])
def metrics(context: Here) -> Response:
    """For Prometheus."""
    return Response(context.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _planned(context: Context, key: Key, values: dict[str, Any]) -> dict[str, Any]:
    card, wanted, seconds = preview_order(context, key, values)
    settings = wanted.settings(card.defaults)
    waiting, of_one = context.jobs.waiting()
    return {
        "object": "plan",
        "model": card.name,
        "size": f"{settings.width}x{settings.height}",
        "frames": settings.frames,
        "fps": settings.fps,
        "seconds": seconds,
        "steps": settings.steps if settings.times is None else len(settings.times),
        "waiting": waiting,
        "waiting_seconds": None if of_one is None else round(waiting * of_one, 1),
        **context.costs.of(wanted, card.name),
    }


def _shown(context: Context, card: ModelCard) -> dict[str, Any]:
    return model_object(card, context.settings.limits, two_pass=context.costs.choice.plan is not None)


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """The API as a page, without scripts, for people who are offline."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": _STYLE_ONLY})


_STYLE_ONLY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
