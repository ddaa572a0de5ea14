"""The application: routes, guard and envelopes around one context. Anything that runs ASGI can run it."""

from fastapi import FastAPI

import openltx
from openltx.serve.context import Context
from openltx.serve.guard import Guard
from openltx.serve.problems import answer_in_envelopes
from openltx.serve.routes import files, service, studio, videos

_ABOUT = "The OpenAI Videos API over an LTX-Video model, with the fields of openltx's own requests as extensions."


def create_app(context: Context) -> FastAPI:
    """The web application of a server; it starts no worker and owns nothing but its routes."""
    app = FastAPI(
        title="openltx",
        version=openltx.__version__,
        description=_ABOUT,
        docs_url=None,  # the stock pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    for routes in (videos, files, service, studio):
        app.include_router(routes.router)
    answer_in_envelopes(app)
    app.add_middleware(Guard, settings=context.settings, metrics=context.metrics)  # pyright: ignore[reportArgumentType]
    return app
