"""One matrix of bad requests through both doors: every one has the table's status and the same text on each.

A case is written once and sent in every form that can carry it: JSON, HTTP binary, gRPC contents, gRPC raw.
"""

import base64
import json
from typing import Any, NamedTuple

import grpc
import pytest

from tests.contract.grpc_client import WITHIN_S, serving
from tests.fake_backend import FakeBackend, echo, raising, simple
from tests.unit.gateway.doors.http_client import client as http_client
from tests.unit.gateway.doors.http_client import error_of
from turnout.core import errors
from turnout.core.status import STATUS
from turnout.core.tensor import Datatype
from turnout.core.wire import inference_pb2 as pb

LISTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
PARAMETERS = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


class Sent(NamedTuple):
    """An input: `data` is a list of elements, or bytes for the forms that carry bytes."""

    name: str = "x"
    datatype: str = "FP64"
    shape: tuple[int, ...] = (1,)
    data: Any = (1.0,)
    parameters: dict[str, Any] = {}  # noqa: RUF012  never changed


class Case(NamedTuple):
    """A request that some door must refuse; one good input unless it says otherwise."""

    inputs: tuple[Sent, ...] = (Sent(),)
    route: str = "echo"
    version: str = ""
    outputs: tuple[tuple[str, dict[str, Any]], ...] = ()
    parameters: dict[str, Any] = {}  # noqa: RUF012  never changed
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


FORM = {
    "unknown route": Case(route="nobody"),
    "unknown route with bad input": Case((Sent(name="no"),), route="nobody"),
    "unknown version": Case(version="7"),
    "version that is no number": Case(version="v10"),
    "missing tensor": Case(()),
    "unknown tensor beside a missing one": Case((Sent(name="y"),)),
    "unknown tensor": Case((Sent(), Sent(name="y"))),
    "tensor sent twice": Case((Sent(), Sent())),
    "unknown datatype": Case((Sent(datatype="STRING", data=()),)),
    "wrong datatype": Case((Sent(datatype="INT64", data=(1,)),)),
    "wrong rank": Case((Sent(shape=(1, 1, 1)),)),
    "wrong axis": Case((Sent("INPUT0", "INT32", (1, 2), (1, 2)), Sent("INPUT1", "INT32", (1, 2), (1, 2))), "simple"),
    "negative axis": Case((Sent(shape=(-1,)),)),
    "rank beyond the limit": Case((Sent(shape=(1,) * 33),)),
    "shape beyond the limit": Case((Sent(shape=(2**40, 2**40)),)),
    "hidden by an empty axis": Case((Sent(shape=(0, 2**62, 2**62), data=()),)),
    "unknown output": Case(outputs=(("z", {}),)),
    "output asked for twice": Case(outputs=(("y", {}), ("y", {}))),
    "no classes": Case(outputs=(("y", {"classification": 0}),)),
    "classes that are no number": Case(outputs=(("y", {"classification": "2"}),)),
    "classes that are a flag": Case(outputs=(("y", {"classification": True}),)),
    "classes of strings": Case((Sent(datatype="BYTES", data=("a",)),), "text", outputs=(("y", {"classification": 1}),)),
    "shared memory in": Case((Sent(shape=(0,), data=(), parameters={"shared_memory_region": "r"}),)),
    "shared memory out": Case(outputs=(("y", {"shared_memory_region": "r"}),)),
    "sequence": Case(parameters={"sequence_id": 7}),
    "named sequence": Case(parameters={"sequence_id": "a"}),
    "deadline of nothing": Case(parameters={"turnout-deadline-ms": 0}),
    "deadline that is a fraction": Case(parameters={"turnout-deadline-ms": 1.5}),
    "deadline that is a flag": Case(parameters={"turnout-deadline-ms": True}),
    "deadline header": Case(headers={"turnout-deadline-ms": "soon"}),
    "negative timeout": Case(parameters={"timeout": -1}),
    "timeout that is text": Case(parameters={"timeout": "soon"}),
    "too many inputs": Case(tuple(Sent(f"x{index}", shape=(0,), data=()) for index in range(16_385))),
}
ELEMENTS = {
    "too few elements": Case((Sent(shape=(2,)),)),
    "too many elements": Case((Sent(data=(1.0, 2.0)),)),
    "elements for none": Case((Sent(shape=(0,)),)),
    "INT8 above": Case((Sent(datatype="INT8", shape=(2,), data=(0, 128)),)),
    "INT8 below": Case((Sent(datatype="INT8", data=(-129,)),)),
    "INT16 above": Case((Sent(datatype="INT16", data=(32768,)),)),
    "UINT8 above": Case((Sent(datatype="UINT8", data=(256,)),)),
}
BYTES = {
    "too short": Case((Sent(data=bytes(7)),)),
    "too long": Case((Sent(data=bytes(9)),)),
    "none": Case((Sent(data=b""),)),
    "no flag": Case((Sent(datatype="BOOL", data=b"\x02"),)),
    "string without length": Case((Sent(datatype="BYTES", data=b"\x01"),), "text"),
    "string beyond the end": Case((Sent(datatype="BYTES", data=b"\x05\x00\x00\x00a"),), "text"),
    "strings left over": Case((Sent(datatype="BYTES", data=b"\x01\x00\x00\x00ab"),), "text"),
    "FP16 too short": Case((Sent(datatype="FP16", shape=(2,), data=bytes(3)),)),
    "missing string": Case((Sent(datatype="BYTES", data=b"\xff\xff\xff\xff"),), "whole"),
}
FAULTS = {
    kind.__name__: Case(route=kind.__name__)
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.TurnoutError) and kind is not errors.MethodNotAllowed
}


def backend():
    """Return models of good will, and one that fails in each way."""
    models = {
        "echo": echo(Datatype.FP64),
        "text": echo(Datatype.BYTES),
        "whole": echo(Datatype.BYTES, nullable=False),
        "simple": simple(),
    }
    failing = {name: raising(getattr(errors, name)("the reason")) for name in FAULTS}
    return FakeBackend({**models, **failing})


def http_request(case, *, binary):
    """Return path, body and headers."""
    raws = []
    inputs = []
    for one in case.inputs:
        tensor = {"name": one.name, "datatype": one.datatype, "shape": one.shape, "parameters": dict(one.parameters)}
        if binary:
            tensor["parameters"]["binary_data_size"] = len(one.data)
            raws.append(one.data)
        elif "shared_memory_region" not in one.parameters:
            tensor["data"] = one.data
        inputs.append(tensor)
    document = {"inputs": inputs, "parameters": case.parameters}
    document["outputs"] = [{"name": name, "parameters": parameters} for name, parameters in case.outputs]
    text = json.dumps(document).encode()
    version = f"/versions/{case.version}" if case.version else ""
    headers = {**case.headers, "turnout-request-id": "r"}
    if binary:
        headers["inference-header-content-length"] = str(len(text))
    return f"/v2/models/{case.route}{version}/infer", b"".join((text, *raws)), headers


def grpc_request(case, *, raw):
    """Return the message."""
    request = pb.ModelInferRequest(model_name=case.route, model_version=case.version)
    _set(request.parameters, case.parameters)
    for one in case.inputs:
        tensor = request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        _set(tensor.parameters, one.parameters)
        if raw:
            request.raw_input_contents.append(one.data)
        elif one.data:
            elements = [value.encode() if isinstance(value, str) else value for value in one.data]
            getattr(tensor.contents, LISTS[one.datatype]).extend(elements)
    for name, parameters in case.outputs:
        _set(request.outputs.add(name=name).parameters, parameters)
    return request


def _set(parameters, values):
    for name, value in values.items():
        setattr(parameters[name], PARAMETERS[type(value)], value)


async def through_both(case, *, as_bytes):
    """Return status and text from each door."""
    path, body, headers = http_request(case, binary=as_bytes)
    async with http_client(backend()) as http:
        answer = await http.post(path, content=body, headers=headers)
    metadata = (*case.headers.items(), ("turnout-request-id", "r"))
    async with serving(backend()) as client:
        got = await client.infer(grpc_request(case, raw=as_bytes), metadata=metadata, timeout=WITHIN_S)
    return (answer.status_code, error_of(answer)), (got.code, got.text)


def agrees(http_status, grpc_code):
    """Tell whether one line of the status table has both."""
    return any((http_status, grpc_code.value[0]) == (status.http, status.grpc) for status in STATUS.values())


MATRIX = [
    *((name, case, False) for name, case in {**FORM, **ELEMENTS, **FAULTS}.items()),
    *((f"raw {name}", case, True) for name, case in BYTES.items()),
]


@pytest.mark.parametrize(("case", "as_bytes"), [row[1:] for row in MATRIX], ids=[row[0] for row in MATRIX])
async def test_both_doors_refuse_alike(case, as_bytes):
    """Status by one line of the table, and the very same text."""
    (http_status, http_text), (grpc_code, grpc_text) = await through_both(case, as_bytes=as_bytes)
    assert http_text == grpc_text
    assert agrees(http_status, grpc_code)
    assert grpc_code is not grpc.StatusCode.OK


@pytest.mark.parametrize("name", FORM)
async def test_bad_form_is_the_callers_mistake(name):
    """No fault of form is blamed on the server."""
    (status, text), _ = await through_both(FORM[name], as_bytes=False)
    assert status in (400, 404)
    assert text


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
async def test_sixteen_bit_floats_are_refused_in_both_listed_forms(datatype):
    """JSON and typed contents have no form for them: each door names its own way out, with the same status."""
    case = Case((Sent(datatype=datatype, data=(1.0,)),))
    path, body, headers = http_request(case, binary=False)
    request = pb.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype=datatype, shape=[1]).contents.fp32_contents.append(1.0)
    async with http_client(backend()) as http:
        answer = await http.post(path, content=body, headers=headers)
    async with serving(backend()) as client:
        got = await client.infer(request)
    assert agrees(answer.status_code, got.code)
    assert all(text.startswith(f"tensor 'x': {datatype} has no") for text in (error_of(answer), got.text))


async def test_what_cannot_be_read_has_one_status():
    """Bytes that are no JSON and bytes that are no message are the same mistake, each told in its own words."""
    garbage = base64.b85decode(b"0123456789abcdef0123")
    async with http_client(backend()) as http:
        answer = await http.post("/v2/models/echo/infer", content=garbage)
    async with serving(backend()) as client:
        got = await client.infer(garbage)
    assert agrees(answer.status_code, got.code)
    assert answer.status_code == 400
