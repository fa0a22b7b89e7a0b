"""The machine's own port (8082): live, ready, metrics, and which snapshot is served. Read only."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from gateway.observe.exposition import CONTENT_TYPE

_JSON: Final = "application/json"
Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class MachineState(Protocol):
    """What the port shows of the machine."""

    @property
    def not_ready(self) -> str:
        """Why the machine is not ready; empty when it is."""

    def exposition(self) -> bytes:
        """Return the metrics of all processes. Reads files: called on a thread."""

    def snapshot_state(self) -> Mapping[str, object]:
        """Return which snapshot is served and held, as JSON-ready values."""


class AdminApp:
    """The ASGI callable of the port."""

    def __init__(self, machine: MachineState) -> None:
        self._machine = machine

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one GET or HEAD request."""
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, _JSON, _body(error="method not allowed"), (b"allow", b"GET, HEAD"))
            return
        status, kind, body = await self._page(scope["path"].rstrip("/"))
        await _answer(send, status, kind, body)

    async def _page(self, path: str) -> tuple[int, str, bytes]:
        match path:
            case "/live":
                return 200, _JSON, _body(live=True)
            case "/ready":
                reason = self._machine.not_ready
                return (503, _JSON, _body(ready=False, reason=reason)) if reason else (200, _JSON, _body(ready=True))
            case "/metrics":
                return 200, CONTENT_TYPE, await asyncio.to_thread(self._machine.exposition)
            case "/snapshot":
                return 200, _JSON, msgspec.json.encode(self._machine.snapshot_state())
            case _:
                return 404, _JSON, _body(error="paths are /live, /ready, /metrics and /snapshot")


def _body(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


async def _answer(send: Send, status: int, kind: str, body: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
