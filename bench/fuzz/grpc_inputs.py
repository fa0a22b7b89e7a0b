"""What is thrown at the gRPC door: messages that are nearly right, and HTTP/2 that no client library would send."""

import struct
from random import Random
from typing import Final

from bench.fuzz.mutation import mutated, noise
from turnout.core.wire import inference_pb2 as wire

SERVICE: Final = "/inference.GRPCInferenceService/"
METHODS: Final = (
    *("ModelInfer", "ModelInfer", "ModelInfer", "ModelMetadata", "ModelReady", "ServerMetadata", "ModelStatistics"),
    *("ModelConfig", "RepositoryIndex", "ServerLive", "NoSuchMethod"),
)
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _END_STREAM, _END_HEADERS = 0, 1, 4, 1, 4


def _right() -> tuple[bytes, ...]:
    raw = wire.ModelInferRequest(model_name="one", raw_input_contents=[struct.pack("<2d", 1, 2)], id="7")
    raw.inputs.add(name="x", datatype="FP64", shape=[2])
    plain = wire.ModelInferRequest(model_name="one", model_version="1")
    plain.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(0.5)
    plain.outputs.add(name="value")
    plain.parameters["turnout"].bool_param = True
    text = wire.ModelInferRequest(model_name="text")
    text.inputs.add(name="x", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", b"b"])
    packed = wire.ModelInferRequest(model_name="text", raw_input_contents=[b"\x01\x00\x00\x00a"])
    packed.inputs.add(name="x", datatype="BYTES", shape=[1])
    return tuple(message.SerializeToString() for message in (raw, plain, text, packed))


RIGHT: Final = _right()


def message(random: Random) -> tuple[str, bytes]:
    """Return a method and the bytes of its request."""
    method = SERVICE + random.choice(METHODS)
    if random.random() < 0.1:
        return method, noise(random, 100)
    return method, mutated(random, random.choice(RIGHT))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _conversation() -> tuple[bytes, ...]:
    """Return the frames of one right call, the preface first."""
    path = (SERVICE + "ModelInfer").encode()
    headers = b"".join(
        _literal(name, value)
        for name, value in (
            *((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"door")),
            *((b"te", b"trailers"), (b"content-type", b"application/grpc")),
        )
    )
    body = b"\x00" + struct.pack(">I", len(RIGHT[0])) + RIGHT[0]
    return (
        PREFACE,
        frame(_SETTINGS, 0, 0, b""),
        frame(_HEADERS, _END_HEADERS, 1, headers),
        frame(_DATA, _END_STREAM, 1, body),
    )


CONVERSATION: Final = _conversation()


def http2(random: Random) -> bytes:
    """Return the bytes of a connection."""
    kind = random.random()
    if kind < 0.1:
        return noise(random, 200)
    if kind < 0.4:
        return mutated(random, b"".join(CONVERSATION))
    frames = list(CONVERSATION)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(1, len(frames) + 1)
        change = random.randrange(4)
        if change == 0:
            frames.insert(at, _any_frame(random))
        elif change == 1 and at < len(frames):
            frames[at] = mutated(random, frames[at])
        elif change == 2 and at < len(frames):
            del frames[at]
        else:
            frames.insert(at, random.choice(frames[1:] or CONVERSATION[1:]))
    return b"".join(frames)


def _any_frame(random: Random) -> bytes:
    stream = random.choice((0, 0, 1, 1, 2, 3, 2**31 - 1, 2**32 - 1))
    return frame(random.randrange(12), random.randrange(256), stream, noise(random, 40))
