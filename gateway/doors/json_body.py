"""Reads JSON documents from callers: strict about types, bounded in depth, faults told by field or tensor name."""

import re
from typing import Final, TypeVar

import msgspec
import numpy as np

from turnout.core.errors import InvalidInput, NonFinite
from turnout.core.json_tensor import NON_FINITE_HINT, NON_FINITE_TOKEN
from turnout.core.request import Parameter

Document = TypeVar("Document")

_STRING: Final = re.compile(rb'"[^"]*"?')
_HALF_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_OUTSIDE: Final = bytes(set(range(256)) - set(b"[]{}"))
_OPENERS: Final = np.frombuffer(b"[{", np.uint8)
_WHERE: Final = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_TENSOR: Final = re.compile(r"(inputs|outputs)\[(\d+)\]\.?(.*)", re.DOTALL)
_PARAMETER: Final = "parameters[...]"
_PARAMETERS: Final = msgspec.json.Decoder(Parameter)
_MAX_SHOWN_NAME: Final = 128
_PIECE_BYTES: Final = 1024 * 1024
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_EXPECTED: Final = re.compile(r"Expected (`.*?`)(.*?)(?:, got (`.*`))?", re.DOTALL)
_TYPES: Final = re.compile(r"`([^`]*)`")
_WORDS: Final = {
    "array": "an array",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "an object",
    "str": "a string",
}
_FRACTION: Final = "a number with a fraction or exponent"
_TO_TF_SERVING: Final = "; instances go to /v1/models/NAME:predict, inputs come here"


class _Named(msgspec.Struct):
    name: str


class _Owner(msgspec.Struct):
    parameters: dict[str, msgspec.Raw] = {}


class _Instances(msgspec.Struct):
    instances: msgspec.Raw


class _Lists(msgspec.Struct):
    inputs: list[msgspec.Raw] = []
    outputs: list[msgspec.Raw] = []


def read(decoder: msgspec.json.Decoder[Document], body: bytes | bytearray, nesting: int) -> Document:
    """Return the document in `body`. Raises InvalidInput naming the field, or the tensor by its name."""
    # Without so many opening brackets no depth beyond the limit is possible: the usual case costs two searches.
    if _has_openers(body, nesting) and depth(body) > nesting:
        raise InvalidInput(f"request body: JSON is nested deeper than {nesting}")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _misfit(body, str(error)) from error
    except msgspec.DecodeError as error:
        raise _malformed(body, error) from error
    except UnicodeDecodeError as error:
        raise InvalidInput("request body: JSON must be UTF-8") from error
    except RecursionError as error:
        raise InvalidInput(f"request body: JSON is nested deeper than {nesting}") from error


def _has_openers(body: bytes | bytearray, more_than: int) -> bool:
    """Tell whether there are more opening brackets; looks at a big body in pieces, so that others get their turn."""
    if len(body) <= _PIECE_BYTES:
        return body.count(b"[") + body.count(b"{") > more_than
    count = 0
    for at in range(0, len(body), _PIECE_BYTES):
        count += body.count(b"[", at, at + _PIECE_BYTES) + body.count(b"{", at, at + _PIECE_BYTES)
        if count > more_than:
            return True
    return False


def depth(body: bytes | bytearray) -> int:
    """Return how deep arrays and objects nest in `body`, whatever its strings hold. Linear in its size."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    brackets = np.frombuffer(_STRING.sub(b"", plain).translate(None, _OUTSIDE), np.uint8)
    steps = np.where(np.isin(brackets, _OPENERS), np.int32(1), np.int32(-1))
    return int(np.cumsum(steps).max(initial=0))


def _malformed(body: bytes | bytearray, error: msgspec.DecodeError) -> InvalidInput:
    if not body.strip():
        return InvalidInput("request body: empty, JSON is expected")
    if _HALF_PAIR.search(body):
        return InvalidInput("request body: a string holds half of a surrogate pair, which is no text")
    token = NON_FINITE_TOKEN.search(_STRING.sub(b"", body))
    if token is not None:
        return NonFinite(f"request body: {NON_FINITE_HINT}")
    return InvalidInput(f"request body: {error}")


def plain(message: str) -> str:
    """Say the decoder's complaint in the words of JSON and of this door, without its place."""
    found = _WHERE.fullmatch(message)
    what = found[1] if found is not None else message
    missing = _MISSING.fullmatch(what)
    if missing is not None:
        return f"field '{missing[1]}' is missing"
    expected = _EXPECTED.fullmatch(what)
    if expected is None:
        return what
    wanted, bound, got = expected[1], expected[2], expected[3]
    said = f", got {_FRACTION if got == '`float`' else _in_words(got)}" if got else ""
    return f"must be {_in_words(wanted)}{bound}{said}"


def _in_words(types: str) -> str:
    return _TYPES.sub(lambda found: " or ".join(_WORDS.get(word, word) for word in found[1].split(" | ")), types)


def _misfit(body: bytes | bytearray, message: str) -> InvalidInput:
    """Name the tensor, parameter or field at which the document is not what it should be."""
    kind = NonFinite if message.startswith("Number out of range") else InvalidInput
    what = plain(message)
    found = _WHERE.fullmatch(message)
    if found is None:
        return kind(f"request body: {what}{_elsewhere(body, message)}")
    path = found[2]
    try:
        return kind(_named_fault(body, what, path))
    except (ValueError, RecursionError):  # behind its first fault the document may be anything
        return kind(f"request body, field '{path}': {what}")


def _elsewhere(body: bytes | bytearray, message: str) -> str:
    """Say where a body of TF Serving's form goes, if it is one."""
    missing = _MISSING.fullmatch(message)
    if missing is None or missing[1] != "inputs":
        return ""
    try:
        msgspec.json.decode(body, type=_Instances)
    except (ValueError, RecursionError):
        return ""
    return _TO_TF_SERVING


def _named_fault(body: bytes | bytearray, what: str, path: str) -> str:
    """Say what is wrong by the names in the document. Raises ValueError where it cannot be read for them."""
    tensor = _TENSOR.match(path)
    if tensor is None:
        return _parameter_fault(body, what) if path == _PARAMETER else f"request body, field '{path}': {what}"
    kind, index, field = tensor[1], int(tensor[2]), tensor[3]
    element = bytes(getattr(msgspec.json.decode(body, type=_Lists), kind)[index])
    owner = _called(element, kind, index)
    if field == _PARAMETER:
        return f"{owner}: {_parameter_fault(element, what)}"
    return f"{owner}: {field}: {what}" if field else f"{owner}: {what}"


def _parameter_fault(owner: bytes | bytearray, what: str) -> str:
    """Say which of the owner's parameters is at fault; the decoder does not."""
    parameters = msgspec.json.decode(owner, type=_Owner).parameters
    # A null may be allowed: what can never be is named first.
    for name in sorted(parameters, key=lambda name: bytes(parameters[name]) == b"null"):
        try:
            _PARAMETERS.decode(parameters[name])
        except msgspec.ValidationError:
            fault = what if what.startswith("Number") else "must be a string, a number, true or false"
            return f"parameter {name[:_MAX_SHOWN_NAME]}: {fault}"
    return f"parameters: {what}"


def _called(element: bytes, kind: str, index: int) -> str:
    """Return how a message calls a tensor; by its position when it has no readable name."""
    try:
        name = msgspec.json.decode(element, type=_Named).name
    except ValueError:
        return f"tensor {index} of {kind}"
    return f"{'tensor' if kind == 'inputs' else 'output'} '{name[:_MAX_SHOWN_NAME]}'"
