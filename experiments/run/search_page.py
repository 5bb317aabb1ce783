"""The web page on which a picture is dropped and its neighbours are shown; the same as JSON."""

import asyncio
import base64
import secrets
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from experiments.run import uploads
from experiments.run.served_gallery import ServedGallery
from triplet_jax import errors
from triplet_jax.data import decoding

_POLICY = (
    "default-src 'none'; img-src 'self' data:; script-src 'nonce-{nonce}';"
    " style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Numbers of thumbnails mean other images once the program has been started again, so that nothing
# may be kept. A browser tells `Origin` only where the referrer may be told to the page itself.
_ALWAYS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def application(
    served: ServedGallery, *, worker: Executor, hosts: Sequence[str], limit: int
) -> Starlette:
    """Makes the web application of a gallery.

    * `GET /` is the page, and `POST /` the page with the neighbours of the picture in its form.
    * `POST /search` answers in JSON, to a form or to a body that is the picture.
    * `GET /thumbnails/NUMBER` is a JPEG of an image of the gallery.

    Args:
      served: the gallery.
      worker: of one thread, which reads and embeds pictures one after the other while further
        requests come in.
      hosts: the names and addresses that a request may have asked for, without a port. Others are
        refused, or another page could read from here by a name of its own that leads to this
        machine (DNS rebinding).
      limit: the most MiB of a picture.
    """
    page = SearchPage(served, worker, limit)
    return Starlette(
        routes=[
            Route("/", page.show, methods=["GET"]),
            Route("/", page.search, methods=["POST"]),
            Route("/search", page.search_as_json, methods=["POST"]),
            Route("/thumbnails/{number:int}", page.thumbnail, methods=["GET"]),
        ],
        middleware=[
            Middleware(_WithHeaders),
            Middleware(uploads.ReadToTheEnd),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={HTTPException: page.refuse, ClientDisconnect: _nobody_listens},
    )


class SearchPage:
    """The functions that answer requests.

    Args:
      served: the gallery.
      worker: see `application`.
      limit: the most MiB of a picture.
    """

    def __init__(self, served: ServedGallery, worker: Executor, limit: int):
        self._served, self._worker, self._limit = served, worker, limit
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("experiments", "templates"), autoescape=True
        )
        self._template = environment.get_template("search.html")

    async def show(self, request: Request) -> Response:
        """The page without an answer."""
        return self._render(request)

    async def search(self, request: Request) -> Response:
        """The page with the neighbours of a picture."""
        picture, name = await self._picture(request)
        found = await self._work(self._served.nearest, picture)
        small = base64.b64encode(await self._work(self._served.small, picture)).decode()
        return self._render(request, name=name or "the picture", found=found, small=small)

    async def search_as_json(self, request: Request) -> Response:
        """The neighbours of a picture for a program."""
        picture, _ = await self._picture(request)
        found = await self._work(self._served.nearest, picture)
        threshold = self._served.threshold
        return JSONResponse(
            {
                "gallery": str(self._served.folder),
                "threshold": threshold.accepted.threshold if threshold else None,
                "neighbours": [
                    {
                        "rank": rank,
                        "path": one.path,
                        "class": one.label,
                        "distance": one.distance,
                        "verdict": one.verdict,
                        "thumbnail": f"/thumbnails/{one.number}",
                    }
                    for rank, one in enumerate(found, start=1)
                ],
            }
        )

    async def thumbnail(self, request: Request) -> Response:
        """An image of the gallery, small."""
        number = request.path_params["number"]
        picture = await self._work(self._served.thumbnail, number, status=404)
        return Response(picture, media_type="image/jpeg")

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answers a request that is refused with the reason: on the page, elsewhere as JSON."""
        assert isinstance(error, HTTPException)
        if request.url.path == "/":
            return self._render(request, status=error.status_code, error=error.detail)
        return JSONResponse(
            {"error": error.detail}, status_code=error.status_code, headers=error.headers
        )

    async def _picture(self, request: Request) -> tuple[bytes, str]:
        _check_origin(request)
        return await uploads.read_picture(request, self._limit)

    async def _work(self, function: Callable, argument: Any, *, status: int = 422) -> Any:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._worker, function, argument)
        except errors.InputError as error:
            said = str(error).removesuffix(".")
            raise HTTPException(status, f"{said[:1].upper()}{said[1:]}.") from error

    def _render(self, request: Request, *, status: int = 200, **shown: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        page = self._template.render(
            shown,
            folder=self._served.folder,
            images=len(self._served),
            threshold=str(self._served.threshold or ""),
            limit=self._limit * uploads.MIB,
            too_large=uploads.too_large(self._limit),
            suffixes=",".join(decoding.SUFFIXES),
            address=f"{request.url.scheme}://{request.headers['host']}",
            nonce=nonce,
        )
        policy = {"content-security-policy": _POLICY.format(nonce=nonce)}
        return HTMLResponse(page, status_code=status, headers=policy)


def _check_origin(request: Request) -> None:
    """Refuses a picture that another page sends by the browser of somebody who looks at it."""
    origin = request.headers.get("origin")
    if origin and urllib.parse.urlsplit(origin).netloc != request.headers["host"]:
        raise HTTPException(403, "Another page has sent this. Open this page, and drop it there.")


async def _nobody_listens(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


class _WithHeaders:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
