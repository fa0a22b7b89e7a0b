"""The HTTP door around prediction: paths, health, metadata, errors, headers, repository (FIELD 4.1, 4.3, 4.5)."""

import re

import pytest

from tests.fake_backend import FakeBackend, echo, raising, simple
from tests.unit.gateway.doors.http_client import client, error_of, sent
from turnout.core.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Internal,
    InvalidInput,
    ModelFault,
    NotFound,
    NotReady,
    Overloaded,
    TooLarge,
    Unauthenticated,
    WorkerLost,
)
from turnout.core.tensor import Datatype

ROW = {"inputs": [sent("x", "FP64", [1], [1.5])]}


@pytest.fixture
def backend():
    """A gateway with one well-behaved model."""
    return FakeBackend({"echo": echo(Datatype.FP64), "simple": simple()})


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/echo",
        "/v2/models/echo/versions/1",
        "/v2/models/echo/ready",
        "/v2/models/echo/versions/1/ready",
        "/v2/models/echo/config",
        "/v2/models/echo/versions/1/config",
        "/v2/models/echo/stats",
        "/v2/models/echo/versions/1/stats",
        "/v2/models/stats",
        "/v1/models/echo",
        "/v1/models/echo/versions/1",
    ],
)
async def test_every_path_answers_with_and_without_a_slash(backend, path, slash):
    """A slash at the end of a path changes nothing."""
    answer = await client(backend).get(path + slash)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["turnout-generation"] == "7"


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/v2/models/echo/infer", "/v2/models/echo/versions/1/infer"])
async def test_infer_answers_with_and_without_version_and_slash(backend, path, slash):
    """The version and a slash at the end are optional."""
    answer = await client(backend).post(path + slash, json=ROW)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "echo",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "data": [1.5]}],
    }
    assert backend.requests[0].version == (1 if "versions" in path else None)


async def test_server_metadata_names_the_extensions_that_clients_test(backend):
    """Names are those of the protocol's extension documents."""
    answer = (await client(backend).get("/v2")).json()
    assert answer["name"] == "turnout"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", answer["version"])
    assert answer["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "statistics",
    ]


async def test_model_metadata_lists_versions_and_tensors(backend):
    """Metadata is what the description says, -1 for a free axis."""
    assert (await client(backend).get("/v2/models/echo")).json() == {
        "name": "echo",
        "versions": ["1"],
        "platform": "turnout_fake",
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
        "properties": {"owner": "tests"},
    }


async def test_health_is_200_or_503_with_a_small_body(backend):
    """Live is always 200; ready follows the gateway."""
    calls = client(backend)
    assert (await calls.get("/v2/health/live")).json() == {"live": True}
    assert (await calls.get("/v2/health/ready")).json() == {"ready": True}
    backend.server_ready = False
    backend.models["echo"].ready = False
    ready = await calls.get("/v2/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})
    model = await calls.get("/v2/models/echo/ready")
    assert (model.status_code, model.json()) == (503, {"name": "echo", "ready": False})
    assert (await calls.get("/v2/health/live")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v2/models/x", "/v2/models/x/ready", "/v2/models/x/config", "/v2/models/x/stats", "/v1/models/x"]
)
@pytest.mark.parametrize("version", ["", "/versions/9", "/versions/v10", "/versions/01"])
async def test_unknown_models_and_versions_are_404_in_the_words_that_clients_look_for(backend, path, version):
    """The text begins as Triton's does, also for a version that is no number."""
    for name in ("x", "echo") if version else ("x",):
        head, _, tail = path.partition("/x")
        answer = await client(backend).get(f"{head}/{name}{version}{tail}")
        assert answer.status_code == 404
        assert error_of(answer).startswith("Request for unknown model")


@pytest.mark.parametrize("path", ["/v2/models/x/infer", "/v2/models/echo/versions/9/infer", "/v1/models/x:predict"])
async def test_predicting_with_an_unknown_model_is_404(backend, path):
    """Unknown routes and versions end before anything runs."""
    answer = await client(backend).post(path, json=ROW)
    assert answer.status_code == 404
    assert error_of(answer).startswith("Request for unknown model")


@pytest.mark.parametrize(
    "path",
    ["/", "/v3", "/v2/health", "/v2/models", "/v2/models/echo/nothing", "/v2/models/echo/versions/1/2/infer", "/docs"],
)
async def test_unknown_paths_are_404_in_our_form(backend, path):
    """No framework's own 404 leaks through."""
    answer = await client(backend).get(path)
    assert answer.status_code == 404
    assert error_of(answer) == f"there is nothing at {path}"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/echo/infer", "POST"),
        ("PUT", "/v2/models/echo/versions/1/infer", "POST"),
        ("GET", "/v1/models/echo:predict", "POST"),
        ("GET", "/v2/repository/index", "POST"),
        ("POST", "/v2/models/echo", "GET"),
        ("DELETE", "/v2/health/live", "GET"),
        ("POST", "/v2", "GET"),
    ],
)
async def test_wrong_methods_are_405_and_name_the_right_one(backend, method, path, allowed):
    """No framework's own 405 leaks through."""
    answer = await client(backend).request(method, path)
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"]
    assert error_of(answer).startswith(f"method {method} is not allowed at {path}; use ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("wrong"), 400),
        (Unauthenticated("who"), 401),
        (Forbidden("no"), 403),
        (NotFound("gone"), 404),
        (Conflict("held"), 409),
        (TooLarge("big"), 413),
        (Overloaded("busy", retry_after_s=3), 429),
        (NotReady("warming"), 503),
        (WorkerLost("died"), 503),
        (DeadlineExceeded("late"), 504),
    ],
)
async def test_errors_have_the_tables_status_and_the_errors_text(error, status):
    """Every error is `{"error": …}` with our headers, the version once one is picked."""
    backend = FakeBackend({"m": raising(error)})
    answer = await client(backend).post("/v2/models/m/infer", json=ROW)
    assert answer.status_code == status
    assert error_of(answer) == error.message
    assert answer.headers["turnout-version"] == "m@1"
    assert answer.headers.get("retry-after") == {429: "3", 503: "1"}.get(status)
    assert backend.refusals == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModelFault("secret path /x"), "the model failed on this request (request id my-id)"),
        (Internal("secret"), "internal error (request id my-id)"),
        (RuntimeError("secret"), "internal error (request id my-id)"),
    ],
)
async def test_our_faults_are_a_fixed_text_with_the_request_id(error, text, caplog):
    """Causes stay in the log."""
    backend = FakeBackend({"m": raising(error)})
    answer = await client(backend).post("/v2/models/m/infer", json=ROW, headers={"turnout-request-id": "my-id"})
    assert answer.status_code == 500
    assert error_of(answer) == text
    assert (caplog.text != "") is isinstance(error, RuntimeError)


async def test_unforeseen_faults_of_other_paths_are_500_in_our_form(backend, monkeypatch, caplog):
    """A broken endpoint answers as everything else does."""
    monkeypatch.setattr(backend, "is_ready", lambda: 1 / 0)
    answer = await client(backend).get("/v2/health/ready")
    assert answer.status_code == 500
    assert error_of(answer).startswith("internal error (request id ")
    assert "ZeroDivisionError" in caplog.text


async def test_a_valid_request_id_comes_back_and_a_bad_one_is_replaced(backend):
    """Every answer has an id: the caller's when it is one."""
    calls = client(backend)
    for path in ("/v2/models/echo/infer", "/v2/models/nobody/infer", "/v2/repository/index"):
        good = await calls.post(path, json=ROW, headers={"turnout-request-id": "a-1.b:c_2"})
        assert good.headers["turnout-request-id"] == "a-1.b:c_2"
        bad = await calls.post(path, json=ROW, headers={"turnout-request-id": "no spaces"})
        assert re.fullmatch(r"[0-9a-f]{32}", bad.headers["turnout-request-id"])


async def test_a_model_called_stats_is_not_shadowed(backend):
    """`/v2/models/stats` is all statistics, unless a route is so named (FIELD 1.3, 12)."""
    calls = client(backend)
    assert list((await calls.get("/v2/models/stats")).json()) == ["model_stats"]
    backend.models["stats"] = echo(Datatype.FP32)
    assert (await calls.get("/v2/models/stats")).json()["name"] == "stats"
    assert (await calls.get("/v2/models/stats/stats")).json()["model_stats"]
    assert (await calls.get("/v2/models/stats/ready")).status_code == 200


async def test_statistics_have_the_extensions_form(backend):
    """Durations are count and nanoseconds, rows and executions apart, the last inference in milliseconds."""
    entry = (await client(backend).get("/v2/models/echo/stats")).json()["model_stats"][0]
    assert (entry["name"], entry["version"], entry["last_inference"]) == ("echo", "1", 5)
    assert (entry["inference_count"], entry["execution_count"]) == (3, 2)
    kinds = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output"]
    assert entry["inference_stats"] == {kind: {"count": 2, "ns": 10} for kind in kinds}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": false}', b" "])
async def test_the_index_is_a_bare_list(backend, body):
    """Name, version, state and reason of every version; the body may be empty."""
    backend.models["simple"].ready = False
    answer = await client(backend).post("/v2/repository/index", content=body)
    assert answer.json() == [
        {"name": "echo", "version": "1", "state": "READY", "reason": ""},
        {"name": "simple", "version": "1", "state": "LOADING", "reason": ""},
    ]


async def test_the_index_can_list_ready_versions_only(backend):
    """`ready` filters."""
    backend.models["simple"].ready = False
    answer = await client(backend).post("/v2/repository/index", json={"ready": True})
    assert [entry["name"] for entry in answer.json()] == ["echo"]


@pytest.mark.parametrize("body", [b"[", b"[1]", b'{"ready": "yes"}', b'{"x":NaN}'])
async def test_a_broken_index_body_is_400(backend, body):
    """Control bodies are read as strictly as others."""
    answer = await client(backend).post("/v2/repository/index", content=body)
    assert answer.status_code == 400
    assert error_of(answer).startswith("request body")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": {"unload_dependents": false}}'])
async def test_models_are_loaded_and_unloaded_by_name(backend, body):
    """An empty object answers once it has taken effect."""
    calls = client(backend)
    for action in ("load", "unload"):
        answer = await calls.post(f"/v2/repository/models/echo/{action}", content=body)
        assert (answer.status_code, answer.json()) == (200, {})
    assert (backend.loaded, backend.unloaded) == (["echo"], ["echo"])


async def test_loading_is_forbidden_unless_allowed(backend):
    """Without repository control both calls are 403, whatever the model."""
    calls = client(backend, repository_control=False)
    for action in ("load", "unload"):
        answer = await calls.post(f"/v2/repository/models/nobody/{action}", content=b"[")
        assert answer.status_code == 403
        assert "--repository-control" in error_of(answer)
    assert (await calls.post("/v2/repository/index")).status_code == 200


@pytest.mark.parametrize("name", ["file:1/model.onnx", "config"])
async def test_load_takes_no_files_and_no_settings(backend, name):
    """Nobody uploads code or overrides a model's settings."""
    body = {"parameters": {name: "x"}}
    answer = await client(backend).post("/v2/repository/models/echo/load", json=body)
    assert answer.status_code == 400
    assert error_of(answer).startswith(f"parameter {name}: ")
    assert backend.loaded == []


async def test_loading_an_unknown_model_is_404(backend):
    """The gateway's refusals come through."""
    answer = await client(backend).post("/v2/repository/models/nobody/load")
    assert answer.status_code == 404
