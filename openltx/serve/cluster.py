"""``openltx serve --ray``: several servers behind one address, on Ray Serve.

    proxy (Ray's)  -> replica: the same application, a supervisor and its worker process
                   -> replica ...

Replicas share nothing but the store, a PostgreSQL, and the folder of files, which all machines see under one path. So
any replica answers for any job, and a job of a replica that dies runs again on another one (``supervisor``). How many
replicas there are follows the jobs that wait, not the requests: a request takes milliseconds, a job minutes.
"""

import asyncio
import logging
import os
import signal
import threading
from contextlib import ExitStack, suppress
from typing import Any

from fastapi import FastAPI

from openltx.errors import ServeError
from openltx.pipelines.residency import choose_device
from openltx.serve.app import create_app
from openltx.serve.context import Context
from openltx.serve.log import happened, log_as_json
from openltx.serve.server import listen, require_keys_outside
from openltx.serve.settings import ServerSettings
from openltx.serve.supervisor import Supervisor

STORE_BYTES = 80_000_000
"""Of Ray's object store on a machine where Ray is started here: nothing large goes through it."""
_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what computes without an accelerator keeps its environment
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # 5 s are too few for a process to start on a busy machine
}
"""Ray's settings, as far as the environment does not say otherwise."""
_UNFINISHED = "unfinished"


def serve_on_ray(settings: ServerSettings, replicas: int, most: int) -> None:
    """Serve until SIGINT or SIGTERM, on the cluster at RAY_ADDRESS or on this machine alone.

    Raises ``ServeError`` for settings that several servers cannot share.
    """
    if not settings.is_shared:
        raise ServeError(
            "Several servers need one database: name a PostgreSQL with --database postgresql://USER:PASSWORD@HOST/NAME."
        )
    if not 1 <= replicas <= most:
        raise ServeError(f"{replicas} to {most} replicas are not possible: there is at least one, and at most many.")
    for name, value in _RAY.items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    log_as_json()
    context = Context.open(settings)  # so that what is wrong is said here
    try:
        require_keys_outside(context)
        listen(settings).close()
    finally:
        context.database.close()
    stop = threading.Event()
    cluster = os.environ.get("RAY_ADDRESS", "local")
    own = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if cluster == "local" else {}
    ray.init(cluster, log_to_driver=False, logging_level=logging.WARNING, **own)
    for number in (signal.SIGINT, signal.SIGTERM):  # behind ray.init, which sets its own
        signal.signal(number, lambda *_: stop.set())
    try:
        with suppress(TimeoutError):  # of a minute for the proxy to come: on a busy machine it comes later
            serve.start(http_options={"host": settings.host, "port": settings.port}, proxy_location="HeadOnly")
        serve.run(_application(settings, replicas, most), name="openltx", route_prefix="/")
        happened("server.started", url=f"http://{settings.host}:{settings.port}", data=settings.data, replicas=replicas)
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
        happened("server.stopped")


def _application(settings: ServerSettings, replicas: int, most: int) -> Any:
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    needs_gpu = choose_device(settings.using.device).type == "cuda"
    scale = AutoscalingConfig(
        min_replicas=replicas,
        max_replicas=most,
        upscale_delay_s=5,
        downscale_delay_s=120,
        metrics_interval_s=2,
        look_back_period_s=10,
        policy=AutoscalingPolicy(policy_function=replicas_for_queue),
    )
    deployment = serve.deployment(
        name="server",
        autoscaling_config=scale,
        ray_actor_options={"num_cpus": settings.threads or 1, "num_gpus": int(needs_gpu)},
        max_ongoing_requests=settings.limits.connections,
        graceful_shutdown_timeout_s=40,
        health_check_period_s=5,
    )
    return deployment(serve.ingress()(Replica)).bind(settings.to_json())


def replicas_for_queue(context: Any) -> tuple[int, dict[str, Any]]:
    """One replica for each job that waits or runs; Ray keeps that between the least and the most."""
    reported = (context.aggregated_metrics or {}).get(_UNFINISHED, {})
    return max(1, round(max(reported.values(), default=0))), {}


class Replica:
    """One server: Ray makes it in a process of its own, from the settings as JSON."""

    def __init__(self, settings: str) -> None:
        log_as_json()
        self._failure: ServeError | None = None
        self._exit = ExitStack()
        self._context = context = Context.open(ServerSettings.from_json(settings))
        self._exit.callback(context.database.close)
        self._exit.enter_context(context.files.locked(shared=True))
        self._supervisor = Supervisor(context.settings, context.database, context.files, self._give_up)
        self._supervisor.start()
        self._exit.callback(self._supervisor.stop)
        self._exit.callback(context.stopping.set)

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray asks for it here, because what is open cannot be sent
        return create_app(self._context)

    def _give_up(self, error: ServeError) -> None:
        self._failure = error

    def check_health(self) -> None:
        """Ray asks now and then; raises if there can be no worker."""
        if self._failure is not None:
            raise self._failure

    def record_autoscaling_stats(self) -> dict[str, float]:
        """How many jobs wait or run, for ``replicas_for_queue``."""
        unfinished, _ = self._context.jobs.waiting()
        return {_UNFINISHED: float(unfinished)}

    async def __del__(self) -> None:
        await asyncio.to_thread(self._exit.close)
