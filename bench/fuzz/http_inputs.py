"""What is thrown at the HTTP door: requests that are nearly right, requests of a grammar, and no requests at all."""

import gzip
import json
import struct
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from bench.fuzz.mutation import TOKENS, mutated, noise

ROW: Final = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [0.5]}]}
_BINARY: Final = {"name": "x", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}}
_NAMES: Final = ("one", "text", "nobody", "", "one@1", "ö", "x" * 200, "stats", "%2e%2e")
_DATATYPES: Final = ("FP64", "FP32", "INT64", "UINT8", "BOOL", "BYTES", "FP16", "BF16", "FP128", "", None, 7)
_PATHS: Final = (
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/{}", "/v2/models/{}/ready", "/v2/models/{}/versions/1"),
    *("/v2/models/{}/infer", "/v2/models/{}/versions/1/infer", "/v2/models/{}/versions/9/infer", "/v2/models/{}/stats"),
    *(
        "/v2/models/{}/config",
        "/v2/repository/index",
        "/v1/models/{}",
        "/v1/models/{}:predict",
        "/v1/models/{}:classify",
    ),
    *("/", "//", "/v2/models//infer", "/v3", "*", "http://other/v2/models/{}/infer"),
)
_METHODS: Final = ("GET", "POST", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PRI", "get", "")


def request(
    body: bytes, path: str = "/v2/models/one/infer", headers: Sequence[str] = (), method: str = "POST"
) -> bytes:
    """Return a whole request as it travels."""
    lines = [f"{method} {path} HTTP/1.1", "host: door", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


def chunked(body: bytes, path: str = "/v2/models/one/infer") -> bytes:
    """Return a request whose body comes in two chunks."""
    half = len(body) // 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
    return b"POST %b HTTP/1.1\r\nhost: door\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (path.encode(), parts)


def _right() -> tuple[bytes, ...]:
    row = json.dumps(ROW).encode()
    text = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a", "ü"]}]}).encode()
    head = json.dumps({"inputs": [_BINARY], "parameters": {"binary_data_output": True}}).encode()
    binary = head + struct.pack("<2d", 1, 2)
    return (
        request(row),
        request(row, headers=("content-type: application/json", "x-user-id: 7", "traceparent: 00-" + "a" * 32)),
        request(text, "/v2/models/text/infer"),
        request(binary, headers=(f"inference-header-content-length: {len(head)}",)),
        request(gzip.compress(row), headers=("content-encoding: gzip",)),
        request(b'{"instances": [1, 2]}', "/v1/models/one:predict"),
        request(b'{"inputs": {"x": [1]}}', "/v1/models/one/versions/1:predict"),
        request(b'{"ready": true}', "/v2/repository/index"),
        request(b"", "/v2/models/one", method="GET"),
        request(b"", "/v2/models/one/versions/1/stats", method="GET"),
        chunked(row),
        request(row) + request(row),
    )


RIGHT: Final = _right()


def http_input(random: Random) -> bytes:
    """Return one input."""
    kind = random.random()
    if kind < 0.5:
        return mutated(random, random.choice(RIGHT))
    if kind < 0.9:
        return _of_grammar(random)
    if kind < 0.95:
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise(random, 60)
    return noise(random, 200)


def _of_grammar(random: Random) -> bytes:
    body = json.dumps(_document(random)).encode()
    if random.random() < 0.2:
        body = mutated(random, body)
    path = random.choice(_PATHS).format(random.choice(_NAMES))
    made = request(body, path, [_header(random) for _ in range(random.randrange(4))], random.choice(_METHODS))
    return mutated(random, made) if random.random() < 0.2 else made


def _header(random: Random) -> str:
    name = random.choice(
        (
            *("content-type", "content-encoding", "accept-encoding", "inference-header-content-length", "x-user-id"),
            *("turnout-request-id", "traceparent", "connection", "expect", "host", "te", "upgrade", "content-length"),
        )
    )
    value = random.choice(
        (
            *("gzip", "deflate", "identity", "br", "0", "1", "-1", "40", "99999999999999999999", "close", "keep-alive"),
            *("100-continue", "h2c", "chunked", "application/json", "application/octet-stream", "", "ü", "a" * 5000),
        )
    )
    return f"{name}: {value}"


def _document(random: Random) -> Any:
    if random.random() < 0.1:
        return _value(random, 3)
    document: dict[str, Any] = {"inputs": [_tensor(random) for _ in range(random.choice((0, 1, 1, 1, 2)))]}
    if random.random() < 0.3:
        document["outputs"] = [{"name": random.choice(("value", "none")), "parameters": _value(random, 2)}]
    if random.random() < 0.3:
        document["parameters"] = {"binary_data_output": _value(random, 0), "turnout": _value(random, 0)}
    if random.random() < 0.3:
        document["id"] = _value(random, 1)
    return document


def _tensor(random: Random) -> Any:
    if random.random() < 0.1:
        return _value(random, 2)
    tensor: dict[str, Any] = {
        "name": random.choice(("x", "x", "x", "y", None)),
        "datatype": random.choice(_DATATYPES),
        "shape": [random.choice((0, 1, 1, 2, -1, 2**31, 2**63, 1.5, "1", True)) for _ in range(random.randrange(4))],
    }
    if random.random() < 0.8:
        tensor["data"] = [_value(random, 2) for _ in range(random.randrange(4))]
    if random.random() < 0.3:
        size = random.choice((0, 1, 8, 16, -1, 2**40, "8"))
        tensor["parameters"] = {"binary_data_size": size}
    return tensor


def _value(random: Random, depth: int) -> Any:
    kind = random.randrange(10)
    if depth and kind == 0:
        return [_value(random, depth - 1) for _ in range(random.randrange(3))]
    if depth and kind == 1:
        return {random.choice(("a", "x", "")): _value(random, depth - 1) for _ in range(random.randrange(3))}
    simple = (0, 1, -1, 1.5, 1e308, 2**53 + 1, 2**64, True, False, None, "", "1", "\u0000", "𝄞", float("nan"))
    return random.choice((*simple, random.choice(TOKENS).decode("latin-1")))
