"""The service on Ray Serve: one front, and as many replicas of the model as the configuration says.

    serve.run -> proxy (HTTP) -> _FrontActor -> handle -> _Replica, _Replica, ...

Ray starts anew what dies. A request whose replica dies is given to another one, or to the same one when it is
back, once, as long as its deadline allows.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, LoggingConfig
from starlette.requests import Request
from starlette.responses import Response

from emotion_task.serve.ask import Ask
from emotion_task.serve.config import ServeConfig
from emotion_task.serve.explainer import Explainer, check_hears
from emotion_task.serve.front import Front
from emotion_task.serve.refused import Refused
from rlcore.actors.session import has_gpus, local_processes, ray_session
from rlcore.config.rollout import check_engine_gpus
from rlcore.endpoints.secrets import read_secret
from rlcore.errors import ActorError, ConfigError, DeadlineError
from rlcore.models.engine_environment import engine_env
from rlcore.models.hf_model import audio_token_id, load_config, load_processor
from rlcore.records.signals import StopFlag

_APP = "emotion"
_HEALTH_PERIOD_S = 2.0
_POLL_S = 0.2
_SPARE_REQUESTS = 64
"""Requests beyond the limit that the front takes in to refuse them."""
_LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)


def serve_model(model_path: str, config: ServeConfig, say: Callable[[str], None]) -> None:
    """Serves a model until Ctrl-C, SIGTERM or a closed terminal, then lets requests finish and ends.

    Args:
        say: told what goes on, a line each.

    Raises:
        ConfigError, DataError: the model or a setting cannot be used, or the port is taken.
        ActorError: a replica did not come up.
        DeadlineError: replicas did not come up within `cluster.startup_timeout_s`.
    """
    if Path(model_path).expanduser().is_dir():
        model_path = str(Path(model_path).expanduser().resolve())
    check_hears(model_path, audio_token_id(load_config(model_path)))
    load_processor(model_path)
    has_token = bool(os.environ.get(config.token_env))
    if has_token:
        read_secret(config.token_env)
    elif not config.is_private:
        raise ConfigError(
            f"host: {config.host} can be reached from other machines, so clients need a token: set the "
            f"environment variable {config.token_env}, or serve 127.0.0.1"
        )
    if config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        _check_port(config.host, config.port)
    say(f"starting Ray and {config.replicas} x vLLM with {model_path}")
    start = time.monotonic()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with ray_session(config.cluster):
        if serve.status().proxies:
            raise ConfigError(
                "cluster.address: Ray Serve runs on this cluster already, at an address of its own; end it "
                "(serve shutdown), or serve on another cluster"
            )
        try:
            _deploy(model_path, config, has_token)
            with StopFlag() as stop:
                _wait_until_ready(config, stop)
                if not stop:
                    seconds = time.monotonic() - start
                    say(f"ready after {seconds:.0f} s: http://{_shown(config.host)}:{config.port}")
                    say("with a token" if has_token else f"without a token ({config.token_env} is not set)")
                while not stop:
                    time.sleep(_POLL_S)
            say(f"{stop.reason}: requests may finish within {config.drain_s:g} s")
        finally:
            _end()
    say("ended")


def _end() -> None:
    """Lets requests finish and ends the application, and on a cluster that goes on Ray Serve too, where
    nothing else is served."""
    serve.delete(_APP)
    if not local_processes() and not serve.status().applications:
        serve.shutdown()


def _deploy(model_path: str, config: ServeConfig, has_token: bool) -> None:
    num_gpus = config.num_gpus if config.num_gpus is not None else float(has_gpus())
    check_engine_gpus(config.engine, num_gpus, "num_gpus", "engine")
    common = {
        "graceful_shutdown_timeout_s": config.drain_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": _HEALTH_PERIOD_S,
        "max_constructor_retry_count": 1,
        "logging_config": _LOGGING,
    }
    in_all = config.max_requests + _SPARE_REQUESTS
    replica = serve.deployment(
        _Replica,
        name="explainer",
        num_replicas=config.replicas,
        max_ongoing_requests=in_all,
        health_check_timeout_s=30.0,
        ray_actor_options={
            "num_cpus": config.num_cpus,
            "num_gpus": num_gpus,
            "runtime_env": {"env_vars": engine_env(cpu=num_gpus == 0)},
        },
        **common,
    ).bind(model_path, config, num_gpus)
    front = serve.deployment(
        _FrontActor,
        name="front",
        max_ongoing_requests=in_all,
        max_queued_requests=_SPARE_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        **common,
    ).bind(replica, config, Path(model_path).name, has_token)
    serve.start(
        proxy_location="HeadOnly",
        http_options=HTTPOptions(
            host=config.host,
            port=config.port,
            request_timeout_s=config.timeout_s + 5,
            keep_alive_timeout_s=30,
        ),
        logging_config=_LOGGING,
    )
    serve.run_many(
        [serve.RunTarget(target=front, name=_APP, route_prefix="/", logging_config=_LOGGING)],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


class _Replica:
    """An `Explainer` as Ray Serve holds it."""

    def __init__(self, model_path: str, config: ServeConfig, num_gpus: float):
        self._explainer = Explainer(model_path, config, num_gpus)

    async def explain(self, ask: Ask) -> dict[str, Any] | Refused:
        """Returns an explanation, or why there is none."""
        try:
            return await self._explainer.explain(ask)
        except Refused as error:  # returned: Ray would log an error
            return error

    async def check(self) -> None:
        """Raises where the engine is of no more use."""
        self._explainer.check()

    async def check_health(self) -> None:
        """Raises where Ray Serve is to start this replica anew."""
        self._explainer.check()


class _FrontActor:
    """A `Front` as Ray Serve holds it. The token is read here, so that it stands in no record of Ray's."""

    def __init__(self, replicas: DeploymentHandle, config: ServeConfig, model: str, has_token: bool):
        self._replicas = replicas
        token = read_secret(config.token_env) if has_token else None
        self._front = Front(config, explain=self._explain, check=self._check, token=token, model=model)

    async def __call__(self, request: Request) -> Response:
        return await self._front.answer(request)

    async def _explain(self, ask: Ask) -> dict[str, Any]:
        try:
            result = await self._replicas.explain.remote(ask)
        except RayActorError:  # the replica died with the request: nothing was answered yet
            result = await self._replicas.explain.remote(ask)
        if isinstance(result, Refused):
            raise result
        return result

    async def _check(self) -> None:
        await self._replicas.check.remote()


def _wait_until_ready(config: ServeConfig, stop: StopFlag) -> None:
    deadline = time.monotonic() + config.cluster.startup_timeout_s
    while not stop:
        app = serve.status().applications.get(_APP)
        if app is not None and app.status == ApplicationStatus.RUNNING:
            return
        if app is not None and app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            told = [each.message for each in app.deployments.values() if each.message]
            raise ActorError("\n".join(["the service did not come up", *(told or [app.message])]))
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"explainer: {config.replicas} replicas of {config.num_cpus:g} CPUs did not come up within "
                f"{config.cluster.startup_timeout_s:g} s (cluster.startup_timeout_s); has the cluster room?"
            )
        time.sleep(_POLL_S)


def _check_port(host: str, port: int) -> None:
    """Raises ConfigError where nobody can listen there: Ray's proxy would try again and again."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        raise ConfigError(f"host and port: {host}:{port} cannot be listened on: {error.strerror}") from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
