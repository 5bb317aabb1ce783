"""What a client may send, as the server sees it."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from experiments.run import uploads

MIB = 2**20
PIECE = 2**16


def request(receive, **headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": named}, receive)


class Endless:
    """A body without an end, of which it counts the pieces that are read."""

    def __init__(self):
        self.pieces = 0

    async def __call__(self):
        self.pieces += 1
        assert self.pieces < 1000
        return {"type": "http.request", "body": bytes(PIECE), "more_body": True}


def test_no_more_than_the_limit_is_kept_of_a_body_of_unknown_length():
    body = Endless()
    with pytest.raises(HTTPException) as refused:
        asyncio.run(uploads.read_picture(request(body), 1))
    assert refused.value.status_code == 413
    assert MIB < body.pieces * PIECE < 1.2 * MIB


def test_nothing_is_read_of_a_body_that_says_it_is_too_large():
    body = Endless()
    with pytest.raises(HTTPException) as refused:
        asyncio.run(uploads.read_picture(request(body, content_length=str(2 * MIB)), 1))
    assert refused.value.status_code == 413
    assert not body.pieces


async def refuse(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


async def refuse_unread(scope, receive, send):
    await send({"type": "http.response.start", "status": 403, "headers": []})


def answer(app, pieces, **headers):
    """What an application sends, after how many pieces of a body were read."""
    sent, read = [], 0

    async def receive():
        nonlocal read
        read += 1
        assert read <= pieces  # a server would wait for ever
        return {"type": "http.request", "body": bytes(PIECE), "more_body": read < pieces}

    async def send(message):
        sent.append((message["type"], read))

    asyncio.run(uploads.ReadToTheEnd(app)(request(receive, **headers).scope, receive, send))
    return sent


def test_a_request_is_read_to_its_end_before_it_is_refused():
    assert answer(refuse, 5) == [("http.response.start", 5), ("http.response.body", 5)]
    assert answer(refuse, 1)[0] == ("http.response.start", 1)
    assert answer(refuse_unread, 3) == [("http.response.start", 3)]


def test_who_waits_for_leave_to_send_is_refused_at_once():
    assert answer(refuse_unread, 3, expect="100-continue") == [("http.response.start", 0)]
    assert answer(refuse, 3, expect="100-continue")[0] == ("http.response.start", 3)


def test_a_client_that_sends_without_an_end_is_answered_in_time(monkeypatch):
    monkeypatch.setattr(uploads, "_PATIENCE", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": bytes(PIECE), "more_body": True}

    async def send(message):
        sent.append(message["type"])

    app = uploads.ReadToTheEnd(refuse_unread)
    asyncio.run(app(request(receive).scope, receive, send))
    assert sent == ["http.response.start"]
