"""The Hub's addresses below `/hf`: models, revisions, trees, files. Read-only.

Knows addresses, parameters and headers; what a revision means is `revisions`', how a file is sent `files`' business.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelyard.api.files import FileSender
from modelyard.api.huggingface import documents, tree
from modelyard.api.huggingface.missing import ON_ERROR, Missing
from modelyard.api.huggingface.revisions import MAIN, Revisions, commit_id
from modelyard.api.pages import page
from modelyard.api.threads import Threads
from modelyard.errors import InvalidInput
from modelyard.repository import ModelRepository, ModelVersion

_PAGE = 1000
_EXPANDED_PAGE = 100
_PATHS_LIMIT = 1 << 20
# What else may stand in the address of a list: it asks for more about each model, or for an order, and not for others.
_IGNORED = {"sort", "direction", "full", "config", "cardData", "expand", "expand[]"}

Endpoint = Callable[[Request], Awaitable[Response]]


def create_hub(repository: ModelRepository, threads: Threads, *, presigned: bool) -> Starlette:
    """The application, for whatever path it is mounted at."""
    hub = _Hub(repository, FileSender(repository.storage, threads, presigned))
    off = threads.endpoint

    async def paths_info(request: Request) -> Response:
        asked = _paths(request, await _body(request))
        return await threads.run(hub.paths_info, request, asked)

    routes = [
        Route("/api/models", off(hub.models)),
        *_routes("/api/models/{model}/revision/{revision:path}", off(hub.model)),
        *_routes("/api/models/{model}/refs", off(hub.refs)),
        *_routes("/api/models/{model}/tree/{revision}", off(hub.tree)),
        *_routes("/api/models/{model}/tree/{revision}/{path:path}", off(hub.tree)),
        *_routes("/api/models/{model}/paths-info/{revision}", paths_info, method="POST"),
        *_routes("/api/models/{model}", off(hub.model)),
        *_routes("/{model}/resolve/{revision}/{path:path}", off(hub.resolve)),
    ]
    app = Starlette(routes=routes, exception_handlers=ON_ERROR)
    app.router.redirect_slashes = False
    return app


def _routes(path: str, endpoint: Endpoint, *, method: str = "GET") -> Iterator[Route]:
    """A model's name is one part of the path, or two."""
    for name in ("{name}", "{namespace}/{name}"):
        yield Route(path.replace("{model}", name), endpoint, methods=[method])


class _Hub:
    """The endpoints. They block."""

    def __init__(self, repository: ModelRepository, sender: FileSender) -> None:
        self._repository = repository
        self._revisions = Revisions(repository)
        self._sender = sender

    def models(self, request: Request) -> Response:
        """Names only: the rest is asked for each."""
        known = {"search", "author", "limit", "cursor"} | _IGNORED
        if strange := sorted(request.query_params.keys() - known):
            raise InvalidInput(f"models can't be chosen by {strange[0]!r} here", remedy="use search and author")
        text, author = (request.query_params.get(key, "").lower() for key in ("search", "author"))
        names = [
            name
            for name in self._repository.list_models()
            if text in name.lower() and (not author or name.lower().startswith(f"{author}/"))
        ]
        found = page(request, names, str, size=_PAGE)
        return _json([documents.summary(name) for name in found.items], found.headers(request, "/api/models"))

    def model(self, request: Request) -> Response:
        version = self._version(request)
        return _json(documents.model(version, blobs=_flag(request, "blobs")))

    def refs(self, request: Request) -> Response:
        name = self._name(request)
        commits = {str(version): self._revisions.commit(name, version) for version in self._revisions.versions(name)}
        return _json(documents.refs(self._repository.tags(name), commits))

    def tree(self, request: Request) -> Response:
        version, path = self._version(request), request.path_params.get("path", "").strip("/")
        folder = tree.find(version.files, path)
        if not isinstance(folder, tree.Folder):
            raise _no_entry(version, path, "folder")
        everything = tree.listing(folder, recursive=_flag(request, "recursive"))
        expand = _flag(request, "expand")
        found = page(request, everything, lambda each: each.path, size=_EXPANDED_PAGE if expand else _PAGE)
        # The next page is of the same commit, whatever the revision means by then.
        address = f"/api/models/{version.name}/tree/{commit_id(version)}/{quote(path)}"
        headers = found.headers(request, address.rstrip("/"))
        return _json([documents.entry(each, version, expand=expand) for each in found.items], headers)

    def paths_info(self, request: Request, asked: tuple[list[str], bool]) -> Response:
        version, (paths, expand) = self._version(request), asked
        found = [tree.find(version.files, path.strip("/")) for path in paths if path.strip("/")]
        return _json([documents.entry(each, version, expand=expand) for each in found if each])

    def resolve(self, request: Request) -> Response:
        version, path = self._version(request), request.path_params["path"]
        file = next((file for file in version.files if file.path == path), None)
        if file is None:
            raise _no_entry(version, path, "file")
        headers = {
            "x-repo-commit": commit_id(version),
            "x-linked-etag": f'"{file.sha256}"',
            "x-linked-size": str(file.size),
        }
        return self._sender.answer(request, file, headers)

    def _version(self, request: Request) -> ModelVersion:
        return self._revisions.find(self._name(request), request.path_params.get("revision", MAIN))

    def _name(self, request: Request) -> str:
        parts = (request.path_params.get("namespace"), request.path_params["name"])
        return self._revisions.name("/".join(part for part in parts if part is not None))


def _no_entry(version: ModelVersion, path: str, kind: str) -> Missing:
    message = f"{version.name}:{version.version} has no {kind} {path!r}"
    return Missing("EntryNotFound", message, commit=commit_id(version))


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("true", "1")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _PATHS_LIMIT:
            raise HTTPException(413, f"the body has more than {_PATHS_LIMIT} bytes")
    return body


def _paths(request: Request, body: bytes) -> tuple[list[str], bool]:
    """The paths that are asked for, and whether with their commits; a form, or JSON as other clients send it."""
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            document = json.loads(body)
            paths, expand = document["paths"], document.get("expand", False) is True
        else:
            fields = parse_qs(body.decode(), max_num_fields=_PAGE)
            paths, expand = fields["paths"], fields.get("expand", [""])[-1].lower() == "true"
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(
            "the body names no paths", remedy=f"send a form with {_PAGE} fields `paths` at most"
        ) from None
    return paths[:_PAGE], expand


def _json(document: Any, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(document, headers=headers)
