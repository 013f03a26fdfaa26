"""The log as files that anybody may check: `/checkpoint`, `/tile/...`, as c2sp.org/tlog-tiles has them.

Read-only. What is complete never changes and may be cached for ever; what grows is asked for again. Tiles hold hashes
and leaves, which are digests: nobody learns what was recorded, only that it was. Without `authority.tiles` they are
served to holders of an SVID under `/v1/log`; with it, to anybody who reaches that address, without TLS.
"""

from collections.abc import Callable
from http import HTTPStatus

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hauberk.core.ports import Store
from hauberk.errors import RecordsError, Tampered
from hauberk.records.tile_export import read_store
from hauberk.records.tile_paths import CHECKPOINT

READERS = 4  # threads for monitors; more of them wait in line
_FOR_EVER = "public, max-age=31536000, immutable"
_NOT_KEPT = "no-cache"


def tile_routes(store: Store, log: str, checkpoint: Callable[[], str], prefix: str = "") -> list[Route]:
    """Return the routes of one log.

    Args:
        store: where it lives.
        log: its name there.
        checkpoint: returns the note that is shown, cosigned where there are witnesses.
        prefix: of the paths.
    """
    pool, fetch = CapacityLimiter(READERS), read_store(store, log)

    async def head(_request: Request) -> Response:
        text = await to_thread.run_sync(checkpoint, limiter=pool)
        if not text:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        return Response(text, media_type="text/plain", headers={"cache-control": _NOT_KEPT})

    async def tile(request: Request) -> Response:
        path = "tile/" + request.path_params["path"]
        try:
            data = await to_thread.run_sync(fetch, path, limiter=pool)
        except Tampered:
            raise
        except RecordsError:
            return Response(status_code=HTTPStatus.NOT_FOUND, headers={"cache-control": _NOT_KEPT})
        return Response(data, media_type="application/octet-stream", headers={"cache-control": _FOR_EVER})

    return [
        Route(f"{prefix}/{CHECKPOINT}", head, methods=["GET"]),
        Route(f"{prefix}/tile/{{path:path}}", tile, methods=["GET"]),
    ]


def tiles_app(store: Store, log: str, checkpoint: Callable[[], str]) -> Starlette:
    """Return the application of the listener for monitors."""
    return Starlette(routes=tile_routes(store, log, checkpoint))
