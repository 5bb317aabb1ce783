"""The pictures that clients of a web server send: how they are read, and how large they may be."""

import asyncio
import contextlib

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIB = 2**20
# What a form adds to its file.
_AROUND = 64 * 2**10
# The seconds for which a refused request is read on.
_PATIENCE = 30


def too_large(limit: int) -> str:
    """The message about a picture above the limit, which is in MiB."""
    return (
        f"The picture is larger than {limit} MiB. Make it smaller, or start the program with more"
        f" than --upload_limit={limit}."
    )


async def read_picture(request: Request, limit: int) -> tuple[bytes, str]:
    """Reads the picture that a request carries: the file of a form, or the whole body.

    Args:
      request: by POST.
      limit: the most MiB of the picture.

    Returns:
      The bytes of the picture, and the name of its file; empty if it has none.

    Raises:
      HTTPException: with status 413 it is too large, with 400 there is none.
    """
    left = limit * MIB + _AROUND

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, too_large(limit))
        return message

    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > left:
        raise HTTPException(413, too_large(limit))
    limited = Request(request.scope, receive)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with limited.form(max_files=1, max_fields=8) as form:
            sent = (value for _, value in form.multi_items() if isinstance(value, UploadFile))
            file = next(sent, None)
            picture, name = (await file.read(), file.filename or "") if file else (b"", "")
    else:
        picture, name = await limited.body(), ""
    if len(picture) > limit * MIB:
        raise HTTPException(413, too_large(limit))
    if not picture:
        raise HTTPException(400, "No picture was sent, or its file is empty.")
    return picture, name


class ReadToTheEnd:
    """Reads a request to its end before it is refused, and forgets what it reads.

    Uvicorn answers a client that is still sending, and resets the connection if the client wants it
    closed afterwards, as urllib does: the client then never sees the answer. One that waits for
    leave to send is answered at once.

    Args:
      app: what answers.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = scope["type"] == "http"
        waits = Headers(scope=scope).get("expect", "").lower() == "100-continue" if more else False

        async def tracked() -> Message:
            nonlocal more, waits
            waits = False
            message = await receive()
            more = message.get("more_body", False)
            return message

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):
                        while more and not waits:
                            await tracked()
            await send(message)

        await self._app(scope, tracked, answered)
