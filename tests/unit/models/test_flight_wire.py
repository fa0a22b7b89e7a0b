"""Flights as requests, read back as a server reads them."""

import json
import math

import msgspec
import numpy as np
import pandas as pd
import pytest

from bench.client import Answer
from models.flight_delay.features import COLUMNS, NUMBERS, TEXTS
from models.flight_delay.wire import BINARY_HEADER, Flights, read_grpc, read_http
from turnout.core import json_tensor
from turnout.core.tensor import Datatype, Tensor
from turnout.core.wire import inference_pb2


@pytest.fixture
def frame():
    """Two flights; the second one's plane is unknown."""
    columns = {name: ["UA", "ÿ"] for name in TEXTS} | {name: [1.5, math.nan] for name in NUMBERS}
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def columns_of(tensors):
    """Return tensors as plain lists, NaN as None."""
    return {
        name: [element.decode() for element in tensor.array]
        if tensor.datatype is Datatype.BYTES
        else [None if math.isnan(x) else x for x in tensor.array]
        for name, tensor in tensors.items()
    }


WANTED = {name: ["UA", "ÿ"] for name in TEXTS} | {name: [1.5, None] for name in NUMBERS}


def test_json_request_carries_every_column(frame):
    """The JSON form has each column with missing numbers as null."""
    body = json.loads(Flights(frame).as_json(0, 2))
    tensors = {
        entry["name"]: json_tensor.decode(
            entry["name"], Datatype(entry["datatype"]), tuple(entry["shape"]), msgspec.json.encode(entry["data"])
        )
        for entry in body["inputs"]
    }
    assert columns_of(tensors) == WANTED


def test_binary_request_carries_every_column(frame):
    """The binary form has the same columns behind the JSON head, and nothing is left over."""
    body, headers = Flights(frame).as_binary(0, 2)
    at = int(headers[BINARY_HEADER])
    tensors = {}
    for entry in json.loads(body[:at])["inputs"]:
        size = entry["parameters"]["binary_data_size"]
        datatype = Datatype(entry["datatype"])
        tensors[entry["name"]] = Tensor.from_raw(entry["name"], datatype, entry["shape"], body[at : at + size])
        at += size
    assert at == len(body)
    assert columns_of(tensors) == WANTED


def test_message_carries_every_column(frame):
    """The gRPC form has the same columns as raw contents, for the rows asked and the version pinned."""
    message = inference_pb2.ModelInferRequest.FromString(Flights(frame).as_message(1, 2, "flight-delay", "3"))
    assert (message.model_name, message.model_version) == ("flight-delay", "3")
    tensors = {
        entry.name: Tensor.from_raw(entry.name, Datatype(entry.datatype), list(entry.shape), raw)
        for entry, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }
    assert columns_of(tensors) == {name: values[1:] for name, values in WANTED.items()}


LABELS = np.array([1, 0], "<i8")
PROBABILITIES = np.array([[0.1, 0.9], [0.75, 0.25]], "<f8")


def test_json_answer_is_read():
    """Labels and probabilities come out of a JSON answer."""
    body = msgspec.json.encode(
        {
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [2], "data": LABELS.tolist()},
                {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "data": PROBABILITIES.ravel().tolist()},
            ]
        }
    )
    answers = read_http(Answer(200, {}, body))
    assert (answers.labels.tolist(), answers.late.tolist()) == ([1, 0], [0.9, 0.25])


def test_binary_answer_is_read():
    """Labels and probabilities come out of a binary answer."""
    outputs = [
        {"name": name, "datatype": "?", "shape": [], "parameters": {"binary_data_size": array.nbytes}}
        for name, array in (("label", LABELS), ("probabilities", PROBABILITIES))
    ]
    head = msgspec.json.encode({"outputs": outputs})
    body = head + LABELS.tobytes() + PROBABILITIES.tobytes()
    answers = read_http(Answer(200, {BINARY_HEADER: str(len(head))}, body))
    assert (answers.labels.tolist(), answers.late.tolist()) == ([1, 0], [0.9, 0.25])


def test_grpc_answer_is_read():
    """Labels and probabilities come out of a gRPC answer."""
    message = inference_pb2.ModelInferResponse()
    for name, array in (("label", LABELS), ("probabilities", PROBABILITIES)):
        message.outputs.add(name=name)
        message.raw_output_contents.append(array.tobytes())
    answers = read_grpc(Answer(0, {}, message.SerializeToString()))
    assert (answers.labels.tolist(), answers.late.tolist()) == ([1, 0], [0.9, 0.25])
