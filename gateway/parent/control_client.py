"""Speaks to control over HTTP: snapshots, bytes, reports, repository calls. It judges nothing that it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import msgspec

from turnout.core.errors import ErrorCode
from turnout.core.report import GatewayReport
from turnout.core.snapshot import Snapshot, decode, digest

LONG_POLL_S: Final = 25
_ANSWER_S: Final = 10.0
# A repository call returns once the change took effect, loads of slow runtimes included.
_REPOSITORY_S: Final = 330.0
_DIGEST_HEADER: Final = "turnout-snapshot-digest"
_BLOBS_HEADER: Final = "turnout-blobs"


class ControlUnreachable(Exception):
    """Control did not answer, or not as agreed; the text is one line."""


class BlobMissing(Exception):
    """Control has no such bytes."""


class Offer(msgspec.Struct, frozen=True):
    """A snapshot as published: `blobs` is a local folder with its bytes, when control named one that exists here."""

    snapshot: Snapshot
    data: bytes
    blobs: Path | None


class _Refusal(msgspec.Struct, frozen=True):
    """Control's error body."""

    error: str
    code: str = ErrorCode.INTERNAL


class ControlClient:
    """A client of one control plane at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, timeout=_ANSWER_S, trust_env=False)

    @property
    def address(self) -> str:
        """Where control listens, as `HOST:PORT`."""
        return self._http.base_url.netloc.decode()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def snapshot(self, after: int) -> Offer | None:
        """Wait for a snapshot newer than generation `after`; None when there is none yet. Raises ControlUnreachable."""
        answer = await self._send(
            "GET", "/v1/snapshot", params={"after": after, "wait_s": LONG_POLL_S}, timeout=LONG_POLL_S + _ANSWER_S
        )
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return None
        if answer.status_code != httpx.codes.OK:
            raise ControlUnreachable(f"control answered {answer.status_code} when asked for a snapshot")
        if digest(answer.content) != answer.headers.get(_DIGEST_HEADER):
            raise ControlUnreachable("control's snapshot does not have the digest that it names")
        try:
            snapshot = decode(answer.content)
        except msgspec.MsgspecError as error:
            raise ControlUnreachable(f"control's snapshot cannot be read: {error}") from error
        named = answer.headers.get(_BLOBS_HEADER)
        blobs = Path(named) if named else None
        return Offer(snapshot, answer.content, blobs if blobs and blobs.is_dir() else None)

    @asynccontextmanager
    async def blob(self, sha256: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a blob's bytes. Raises BlobMissing and ControlUnreachable."""
        try:
            async with self._http.stream("GET", f"/v1/blobs/{sha256}") as answer:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    raise BlobMissing
                if answer.status_code != httpx.codes.OK:
                    raise ControlUnreachable(f"control answered {answer.status_code} when asked for bytes")
                yield answer.aiter_bytes()
        except httpx.HTTPError as error:
            raise ControlUnreachable(_reason(error)) from error

    async def report(self, report: GatewayReport) -> None:
        """Post this machine's report. Raises ControlUnreachable."""
        answer = await self._send(
            "POST", f"/v1/gateways/{report.gateway}/report", content=msgspec.json.encode(report), timeout=_ANSWER_S
        )
        if not answer.is_success:
            raise ControlUnreachable(f"control answered {answer.status_code} to a report")

    async def repository(self, action: str, name: str) -> tuple[str, str]:
        """Ask control to load or unload a model; return the error code and message, both empty when it is done."""
        try:
            answer = await self._send("POST", f"/v1/repository/models/{name}/{action}", timeout=_REPOSITORY_S)
        except ControlUnreachable as error:
            return ErrorCode.NOT_READY, f"the control plane is out of reach: {error}"
        if answer.is_success:
            return "", ""
        try:
            refusal = msgspec.json.decode(answer.content, type=_Refusal)
        except msgspec.MsgspecError:
            return ErrorCode.INTERNAL, f"control answered {answer.status_code}"
        return refusal.code, refusal.error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: float,  # noqa: ASYNC109  httpx's own
        params: dict[str, int] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, params=params, content=content, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ControlUnreachable(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
