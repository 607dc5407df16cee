"""The application of port 7071, composed of its parts: each has a path below which it answers for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.api.access import Guard
from modelyard.api.huggingface.hub import create_hub
from modelyard.api.metrics import Metrics
from modelyard.api.threads import Threads
from modelyard.errors import MissingExtra

try:
    from starlette.applications import Starlette
    from starlette.routing import Mount, Route
except ImportError as error:
    raise MissingExtra("starlette", "api") from error

if TYPE_CHECKING:
    from modelyard.yard import Yard


def create_app(yard: Yard) -> Starlette:
    """The application over what is in the yard's store."""
    threads = Threads()
    hub = create_hub(yard.repository, threads, presigned=yard.settings.api.presigned)
    metrics = Metrics(yard.gateway_statistics, yard.engine_of)
    app = Starlette(routes=[Mount("/hf", hub), Route("/metrics", threads.endpoint(metrics.answer))])
    app.router.redirect_slashes = False
    app.add_middleware(Guard, rules=yard.access.rules(yard.settings.api.host), issuer=yard.access.issuer)
    return app
