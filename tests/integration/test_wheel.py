"""What ships: the wheel and the source distribution, installed in an empty environment far from the checkout."""

import contextlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from bench.launch import ANY_PORT, Gateway
from bench.versions import write_onnx, write_sklearn

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
PACKAGES = ("turnout/", "gateway/", "adapters/")

pytestmark = pytest.mark.timeout(300)


def run(*command, cwd):
    """Run a command and return its output; a failure shows it."""
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both distributions from the checkout, once."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--directory", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    """Return the wheel."""
    (found,) = built.glob("*.whl")
    return found


def installed(folder, what):
    """Install a wheel, by the locked versions, in an empty environment below `folder`; return the folder."""
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(UV, "pip", "install", "-q", "--python", python, "-c", ROOT / "requirements" / "dev.txt", what, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """Return an environment with the wheel alone."""
    return installed(tmp_path_factory.mktemp("bare"), wheel)


@pytest.fixture(scope="module")
def full(wheel, tmp_path_factory):
    """Return an environment with the wheel and all its extras."""
    return installed(tmp_path_factory.mktemp("full"), f"{wheel}[all]")


@contextlib.contextmanager
def serving(folder, models, state):
    """Run the installed `turnout serve` over a folder of models."""
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    process = subprocess.Popen(
        [str(folder / "venv" / "bin" / "turnout"), "serve", str(models), "--state", str(state), *ANY_PORT],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    gateway = Gateway(process)
    try:
        gateway.wait_ready(60)
        yield gateway
    finally:
        gateway.stop(30)


def ask(gateway, model):
    """Predict one row and return the answer's first value."""
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [0.0]}
    answer = httpx.post(f"http://{gateway.http}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


def test_wheel_holds_the_three_packages_and_nothing_else(wheel):
    """The wheel has every tracked file of the packages, with the Java sources, and no tests, models or tools."""
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name for name in names if ".dist-info/" not in name}
    tracked = set(run("git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, cwd=ROOT).split())
    assert shipped == tracked
    assert any(name.startswith("adapters/jvm/java/") and name.endswith(".java") for name in shipped)
    assert {"turnout/py.typed", "gateway/py.typed", "adapters/py.typed"} <= shipped
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_source_distribution_builds_the_same_wheel(built, wheel, tmp_path):
    """A wheel built from the unpacked source distribution has the same files."""
    (sdist,) = built.glob("*.tar.gz")
    run("tar", "--extract", "--file", sdist, cwd=tmp_path)
    (unpacked,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "again"]
    run(*command, cwd=unpacked)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_installed_wheel_serves(bare, tmp_path):
    """Without extras the wheel serves ONNX; a scikit-learn version is named with the extra that it needs."""
    write_onnx(tmp_path / "models" / "one", 1.0)
    write_sklearn(tmp_path / "models" / "two", 2.0)
    with serving(bare, tmp_path / "models", tmp_path / "state") as gateway:
        assert ask(gateway, "one") == 1.0
        log = "".join(gateway.log)
    assert "turnout[sklearn]" in log


def test_extras_install_and_serve(full, tmp_path):
    """With the extra, scikit-learn versions are served as well, and what every extra names can be imported."""
    run(full / "venv" / "bin" / "python", "-c", "import sklearn, skops.io, skl2onnx, onnx", cwd=tmp_path)
    write_onnx(tmp_path / "models" / "one", 1.0)
    write_sklearn(tmp_path / "models" / "two", 2.0)
    with serving(full, tmp_path / "models", tmp_path / "state") as gateway:
        assert (ask(gateway, "one"), ask(gateway, "two")) == (1.0, 2.0)


def test_installed_code_is_the_installed_one(bare, tmp_path):
    """The environment's packages come from its own site-packages, not from the checkout."""
    code = "import turnout, gateway, adapters; print(turnout.__file__, gateway.__file__, adapters.__file__)"
    said = run(bare / "venv" / "bin" / "python", "-c", code, cwd=tmp_path)
    assert all(str(bare) in path for path in said.split())
