"""TF Serving's REST form: rows and columns, with and without names, answers in the same form."""

import json

import numpy as np
import pytest

from tests.fake_backend import FakeBackend, FakeModel, constant, echo, simple
from tests.unit.gateway.doors.http_client import client, error_of
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor

ROW = [list(range(16)), [1] * 16]


def flight():
    """Return a model of columns of three datatypes that answers one of them and a label."""

    async def answer(inputs):
        return {"hours": Tensor.of(inputs["minutes"].array / 60), "carrier": inputs["carrier"]}

    specs = {"minutes": Datatype.FP64, "carrier": Datatype.BYTES, "flight": Datatype.INT64}
    return FakeModel(
        Signature(
            inputs=tuple(TensorSpec(name, datatype, (-1,), nullable=True) for name, datatype in specs.items()),
            outputs=(TensorSpec("hours", Datatype.FP64, (-1,)), TensorSpec("carrier", Datatype.BYTES, (-1,))),
        ),
        answer,
    )


@pytest.fixture
def backend():
    """A gateway of models of one and several inputs."""
    return FakeBackend(
        {
            "flight": flight(),
            "simple": simple(),
            "rows": echo(Datatype.FP32, (-1, 3)),
            "column": echo(Datatype.FP64),
            "text": echo(Datatype.BYTES),
            "grid": echo(Datatype.BYTES, (-1, 2)),
            "scalar": echo(Datatype.FP64, ()),
        }
    )


async def predict(backend, name, document):
    """Return the answer to a document."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await client(backend).post(f"/v1/models/{name}:predict", content=content)


@pytest.mark.parametrize(
    ("name", "document", "answer"),
    [
        ("rows", {"instances": [[1, 2, 3], [4, 5, 6]]}, {"predictions": [[1, 2, 3], [4, 5, 6]]}),
        ("rows", {"inputs": [[1, 2, 3], [4, 5, 6]]}, {"outputs": [[1, 2, 3], [4, 5, 6]]}),
        ("rows", {"inputs": {"x": [[1, 2, 3]]}}, {"outputs": [[1, 2, 3]]}),
        ("rows", {"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]}, {"predictions": [[1, 2, 3], [4, 5, 6]]}),
        ("rows", {"instances": []}, {"predictions": []}),
        ("rows", {"inputs": []}, {"outputs": []}),
        ("column", {"instances": [1, 2.5]}, {"predictions": [1, 2.5]}),
        ("column", {"instances": [[1], [2]]}, {"predictions": [1, 2]}),
        ("column", {"signature_name": "serving_default", "instances": [1]}, {"predictions": [1]}),
        ("column", {"signature_name": "", "instances": [1]}, {"predictions": [1]}),
        ("text", {"instances": ["a", "\u00e9", ""]}, {"predictions": ["a", "\u00e9", ""]}),
        ("text", {"instances": [{"b64": "YQBi"}, "c"]}, {"predictions": ["a\0b", "c"]}),
        ("text", {"inputs": [{"b64": "YQ=="}, None]}, {"outputs": ["a", None]}),
        ("text", {"instances": []}, {"predictions": []}),
        ("grid", {"instances": [["a", "b"], [{"b64": "Yw=="}, "d"]]}, {"predictions": [["a", "b"], ["c", "d"]]}),
        ("grid", {"instances": []}, {"predictions": []}),
        ("scalar", {"inputs": 5}, {"outputs": 5.0}),
        (
            "flight",
            {"instances": [{"minutes": 30, "carrier": "UA", "flight": 9007199254740993}]},
            {"predictions": [{"hours": 0.5, "carrier": "UA"}]},
        ),
        (
            "flight",
            {"inputs": {"minutes": [30, 90], "carrier": ["UA", None], "flight": [1, 2]}},
            {"outputs": {"hours": [0.5, 1.5], "carrier": ["UA", None]}},
        ),
        ("simple", {"instances": [{"INPUT0": ROW[0], "INPUT1": ROW[1]}]}, None),
    ],
)
async def test_rows_and_columns_come_back_in_their_form(backend, name, document, answer):
    """`instances` answer `predictions`, `inputs` answer `outputs`; one output goes without its name."""
    got = await predict(backend, name, document)
    assert got.status_code == 200
    assert got.headers["turnout-version"] == f"{name}@1"
    sums = {"OUTPUT0": [i + 1 for i in range(16)], "OUTPUT1": [i - 1 for i in range(16)]}
    assert got.json() == ({"predictions": [sums]} if answer is None else answer)


async def test_integers_keep_all_their_digits(backend):
    """The model's datatype decides how a number is read: INT64 never passes through a double."""
    await predict(backend, "flight", {"instances": [{"minutes": 1, "carrier": "", "flight": 2**53 + 1}]})
    assert backend.requests[0].inputs["flight"].array.tolist() == [2**53 + 1]


async def test_null_is_nan_and_a_missing_string(backend):
    """As in the protocol's own form."""
    await predict(backend, "flight", {"instances": [{"minutes": None, "carrier": None, "flight": 1}]})
    inputs = backend.requests[0].inputs
    assert np.isnan(inputs["minutes"].array).tolist() == [True]
    assert inputs["carrier"].array.tolist() == [None]


@pytest.mark.parametrize(
    ("name", "document", "reason"),
    [
        ("rows", b"", "request body: empty"),
        ("rows", b"[]", "request body: must be an object, got an array"),
        ("rows", {}, "request body: needs either instances or inputs"),
        ("rows", {"instances": [], "inputs": []}, "request body: needs either instances or inputs"),
        ("rows", {"signature_name": "other", "instances": []}, "field signature_name: there is 'serving_default' only"),
        (
            "rows",
            {"signature_name": 1, "instances": []},
            "request body, field 'signature_name': must be a string or null, got a whole number",
        ),
        ("rows", {"instances": {"x": 1}}, "field instances: must be a list"),
        ("rows", {"instances": 5}, "field instances: must be a list"),
        ("rows", {"instances": [[1, 2, 3], [4, 5]]}, "tensor 'x': data is ragged, axis 1"),
        ("rows", {"instances": [[1, 2, 3], 4]}, "tensor 'x': data is ragged, axis 1"),
        ("rows", {"instances": [[1, 2]]}, "tensor 'x': axis 1 must be 3, got 2"),
        ("rows", {"instances": [[1, 2, "3"]]}, "tensor 'x': element 2 must be a number, got str"),
        ("rows", {"instances": [[1, 2, 1e39]]}, "tensor 'x': element 2 overflows FP32"),
        ("rows", b'{"instances": [[1, 2, 1e400]]}', "tensor 'x': element 2 overflows FP32"),
        ("rows", b'{"instances": [{"\xff": 1}]}', "request body: JSON must be UTF-8"),
        ("text", b'{"instances": ["a", "\xff"]}', "request body: JSON must be UTF-8"),
        ("rows", b'{"instances": [[1, 2, NaN]]}', "request body: NaN and Infinity are not JSON"),
        ("rows", {"instances": [{"z": [1, 2, 3]}]}, "tensor 'z': unknown; inputs are 'x'"),
        ("rows", {"inputs": {"z": []}}, "tensor 'z': unknown; inputs are 'x'"),
        ("rows", {"inputs": {}}, "tensor 'x': missing"),
        ("rows", {"inputs": "text"}, "tensor 'x': element 0 must be a number, got str"),
        ("column", {"instances": [[[1]]]}, "tensor 'x': rank must be 1"),
        ("flight", {"instances": [1]}, "request body: this model has 3 inputs, send them by name: 'minutes', "),
        ("flight", {"inputs": [1]}, "request body: this model has 3 inputs, send them by name: 'minutes', "),
        (
            "flight",
            {"instances": [{"minutes": 1}, {"carrier": ""}]},
            "field instances: row 1 has other inputs than row",
        ),
        ("flight", {"instances": [{"minutes": 1}, 5]}, "field instances: row 1 has other inputs than row 0"),
        ("flight", {"instances": [{"minutes": 1}]}, "tensor 'carrier': missing"),
        ("text", {"instances": ["a", {"b64": "%"}]}, "tensor 'x': element 1 is not base64"),
        ("text", {"instances": ["a", {"b64": "YQ"}]}, "tensor 'x': element 1 is not base64"),
        ("text", {"instances": ["a", {"b65": "YQ=="}]}, "tensor 'x': element 1 must be a string or"),
        (
            "text",
            {"instances": ["a", 1]},
            "tensor 'x': an element must be a string or an object or null, got a whole number",
        ),
        ("grid", {"instances": [["a", "b"], ["c"]]}, "tensor 'x': data is ragged, axis 1"),
        ("scalar", {"inputs": []}, "tensor 'x': rank must be 0"),
        ("nobody", {"instances": [1]}, "Request for unknown model"),
    ],
)
async def test_bad_bodies_are_refused_by_name(backend, name, document, reason):
    """The same rules and words as in the protocol's own form."""
    answer = await predict(backend, name, document)
    assert answer.status_code == (404 if name == "nobody" else 400)
    assert error_of(answer).startswith(reason)


async def test_outputs_called_bytes_are_base64_and_others_text():
    """Names that end in `_bytes` are answered as TF Serving does; other bytes that are no text are 400."""
    raw = Tensor.of(np.array([b"\xff", None], dtype=object))
    backend = FakeBackend({"m": constant(image_bytes=raw), "t": constant(image=raw)})
    answer = await predict(backend, "m", {"instances": [1, 2]})
    assert answer.json() == {"predictions": [{"b64": "/w=="}, None]}
    refused = await predict(backend, "t", {"instances": [1, 2]})
    assert refused.status_code == 400
    assert error_of(refused).startswith("tensor 'image': element 0 is not UTF-8")


async def test_non_finite_and_half_precision_outputs_are_no_json():
    """A NaN is the model's fault, FP16 a 400, as in the protocol's own form."""
    backend = FakeBackend(
        {"nan": constant(y=Tensor.of(np.array([np.nan]))), "half": constant(y=Tensor.of(np.zeros(1, np.float16)))}
    )
    assert (await predict(backend, "nan", {"instances": [1]})).status_code == 500
    assert (await predict(backend, "half", {"instances": [1]})).status_code == 400
    assert backend.outcomes == ["model_fault", "invalid_input"]


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((), (2,))])
async def test_outputs_that_are_no_rows_need_the_column_form(shapes):
    """Rows cannot be cut from outputs of different lengths."""
    outputs = {name: Tensor.of(np.zeros(shape)) for name, shape in zip("ab", shapes, strict=True)}
    backend = FakeBackend({"m": constant(**outputs)})
    refused = await predict(backend, "m", {"instances": [1]})
    assert refused.status_code == 400
    assert "send inputs instead of instances" in error_of(refused)
    answer = await predict(backend, "m", {"inputs": [1]})
    assert list(answer.json()["outputs"]) == ["a", "b"]


@pytest.mark.parametrize("path", ["/v1/models/column:predict/", "/v1/models/column/versions/1:predict"])
async def test_versions_are_taken_in_the_path(backend, path):
    """With or without a version, with or without a slash."""
    answer = await client(backend).post(path, json={"instances": [1]})
    assert answer.json() == {"predictions": [1]}
    assert backend.requests[0].version == (1 if "versions" in path else None)


async def test_the_status_lists_loaded_versions(backend):
    """AVAILABLE when ready, LOADING else."""
    calls = client(backend)
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (await calls.get("/v1/models/rows")).json() == {"model_version_status": [available]}
    backend.models["rows"].ready = False
    document = (await calls.get("/v1/models/rows/versions/1")).json()
    assert document["model_version_status"][0]["state"] == "LOADING"


@pytest.mark.parametrize("method", [":classify", ":regress", ":nothing"])
async def test_other_calls_of_tf_serving_are_refused(backend, method):
    """Only predict is offered: what stands there else can only be read."""
    answer = await client(backend).post(f"/v1/models/rows{method}", json={})
    assert answer.status_code == 405
    assert error_of(answer)
