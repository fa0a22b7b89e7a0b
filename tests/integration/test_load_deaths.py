"""Versions that processes die of, of a load or of calls: they are taken out, and all others serve."""

import httpx
import joblib
import numpy as np
import pytest
from sklearn.dummy import DummyRegressor

from bench.versions import write_onnx, write_python, write_routes, write_sklearn
from tests.waiting import eventually

# One process after the other imports scikit-learn, which takes long on a busy machine.
pytestmark = pytest.mark.timeout(360)
WITHIN_S = 150


class _Deadly:
    """Read from a pickle it ends the process, unless `saved` exists: then it is the estimator stored there."""

    def __init__(self, how, saved):
        self._how, self._saved = how, saved

    def __reduce__(self):
        saved = f"__import__('joblib').load({str(self._saved)!r})"
        return eval, (f"{saved} if __import__('os').path.exists({str(self._saved)!r}) else {self._how}",)


EXITS = "__import__('os')._exit(3)"
CRASHES = "__import__('os').abort()"


def _write(folder, how, saved):
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(_Deadly(how, saved), folder / "model.joblib")


def _heal(saved):
    joblib.dump(DummyRegressor(strategy="constant", constant=7.0).fit(np.zeros((2, 1)), np.zeros(2)), saved)


def _states(server):
    return server.admin("/snapshot").json()["versions"]


def _answer(server, model):
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [0.0]}
    answer = httpx.post(f"http://{server.http}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=30)
    return answer.json()["outputs"][0]["data"]


@pytest.fixture
def bytecode(tmp_path):
    """Return an environment in which the second import of scikit-learn is quicker than the first."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}


def test_a_version_whose_load_ends_the_process_is_taken_out_until_it_is_loaded_again(serve, folder, tmp_path, bytecode):
    """It fails with the reason, and no other does; a repository load tries once more and answers when it serves."""
    _write(folder / "deadly", EXITS, tmp_path / "saved")
    write_sklearn(folder / "good", 5.0)
    server = serve(folder, **bytecode)
    assert "the process died 3 times while loading it; load it again, or start Turnout again, to retry" in (
        server.logged("deadly@1: quarantined", WITHIN_S)
    )
    server.ready(WITHIN_S)
    eventually(lambda: _states(server) == {"deadly@1": "failed", "good@1": "ready", "one@1": "ready"}, WITHIN_S)
    assert _answer(server, "good") == [5.0]
    assert server.predict("one").status_code == 200
    (pid,) = server.gateways()
    _heal(tmp_path / "saved")
    loaded = httpx.post(f"http://{server.http}/v2/repository/models/deadly/load", json={}, timeout=WITHIN_S)
    assert loaded.status_code == 200, loaded.text
    assert _states(server)["deadly@1"] == "ready"
    assert _answer(server, "deadly") == [7.0]
    assert server.gateways() == [pid]
    assert server.end() == 0


def test_a_route_is_not_led_to_a_version_that_ends_processes(serve, folder, tmp_path, bytecode):
    """Processes that serve come back each time; in the end the change is refused, and the old route serves on."""
    write_onnx(folder / "two" / "1", 1.0)
    write_routes(folder, {"two": {"champion": "two@1"}})
    server = serve(folder, **bytecode).ready()
    _write(folder / "two" / "2", CRASHES, tmp_path / "saved")
    write_routes(folder, {"two": {"champion": "two@2"}})
    server.logged("two@2: quarantined", WITHIN_S)
    eventually(lambda: _states(server) == {"one@1": "ready", "two@1": "ready", "two@2": "failed"}, WITHIN_S)
    assert server.predict("two").headers["turnout-version"] == "two@1"
    assert "two@2 cannot be served: quarantined: the process died 3 times" in server.logged(
        "two@2 cannot be served", WITHIN_S
    )
    assert server.end() == 0


def test_a_version_whose_worker_dies_of_calls_is_taken_out_until_it_is_loaded_again(serve, folder, tmp_path):
    """It fails with the reason and what lifts that; a repository load starts another worker, and it answers."""
    write_python(folder / "py", 3.0)
    code, deadly = folder / "py" / "constant_model.py", tmp_path / "deadly"
    ends = f"__import__('os').path.exists({str(deadly)!r}) and __import__('os')._exit(3)"
    code.write_text(code.read_text().replace("return", f"{ends}\n        return"))
    server = serve(folder).ready()
    deadly.touch()
    eventually(lambda: (server.predict("py").status_code, _states(server)["py@1"])[1] == "failed", WITHIN_S)
    assert (
        "its worker was lost 3 times within 60 s with calls in flight; load it again, or start Turnout again, to retry"
    ) in server.logged("py@1: quarantined", WITHIN_S)
    assert server.predict("one").status_code == 200
    deadly.unlink()
    loaded = httpx.post(f"http://{server.http}/v2/repository/models/py/load", json={}, timeout=WITHIN_S)
    assert loaded.status_code == 200, loaded.text
    assert _states(server)["py@1"] == "ready"
    assert server.predict("py").status_code == 200
    assert server.end() == 0
