"""Every fenced command of the documents runs, against a gateway that serves the flight-delay model."""

import asyncio
import os
import re
import subprocess
import sys

import pytest

from bench.launch import serve
from models.flight_delay import lineup, training
from models.flight_delay.features import MODEL
from tests.docs.blocks import ROOT as CHECKOUT
from tests.docs.blocks import RUN, SHOWN, blocks, documents

COMMANDS = [block for block in blocks() if block.language in RUN]
WITHIN_S = 60


@pytest.fixture(scope="session")
def flights(tmp_path_factory):
    """Serve the scikit-learn and ONNX versions as the tour does, trained once for many test runs."""
    parts = lineup.parts(with_spark=False)
    cache = CHECKOUT / "build" / "flight_delay"
    trained = asyncio.run(training.ensure((training.SCIKIT,), cache, {}, lambda program, step: None))
    folder = tmp_path_factory.mktemp("flights")
    lineup.assemble(folder / "models", parts, trained)
    with serve(folder / "models", folder / "state", environment={"PYTHONWARNINGS": "default"}) as gateway:
        yield gateway


@pytest.fixture
def sandbox(tmp_path):
    """Return a folder that looks like the checkout; what a block writes beside its entries stays there."""
    for entry in CHECKOUT.iterdir():
        if entry.name not in {".git", "build", ".turnout"}:
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def rewritten(text, gateway):
    """Return a block with the usual ports replaced by those of this gateway."""
    ports = {"8080": gateway.http, "8081": gateway.grpc, "8082": gateway.metrics, "8090": gateway.control}
    text = re.sub(r"localhost:(80(?:80|81|82|90))", lambda found: ports[found[1]], text)
    return re.sub(r"http://localhost\b", f"http://{gateway.http}", text)


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_command_of_the_documents_runs(block, flights, sandbox):
    """Each block ends with status 0; a command says something, and an error in an answer counts as failure."""
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    environment = {
        **os.environ,
        "PATH": f"{CHECKOUT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "TURNOUT_PREDICT_URL": f"http://{flights.http}",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        [*program, rewritten(block.text, flights)],
        cwd=sandbox,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip() or block.language != "sh", f"{block} says nothing"
    assert '"error"' not in done.stdout, f"{block}\n{done.stdout}"


def test_every_block_has_a_language():
    """A fenced block is either run or of a language that only shows; commands that cannot run are indented text."""
    assert [f"{block} '{block.language}'" for block in blocks() if block.language not in RUN | SHOWN] == []


def test_readme_shows_a_request_over_each_door():
    """The README's executed commands include one over HTTP by curl and one over gRPC."""
    readme = "".join(block.text for block in COMMANDS if block.file == "README.md")
    assert f"curl -s localhost:8080/v2/models/{MODEL}/infer" in readme
    assert "predict_grpc.py localhost:8081" in readme


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_links_lead_somewhere(document):
    """Each relative link of a document names a file or folder of the checkout."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL))
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert broken == []


def test_index_leads_to_every_page():
    """The index of the documentation names each page, or the folder that it is in."""
    index = (CHECKOUT / "docs" / "README.md").read_text()
    linked = {(CHECKOUT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", index)}
    pages = {path.resolve() for path in (CHECKOUT / "docs").rglob("*.md") if path.name != "README.md"}
    assert [page for page in pages if not linked & {page, *page.parents}] == []


def test_make_targets_of_the_documents_exist():
    """Each `make TARGET` that a document names is a target of the Makefile."""
    targets = set(re.findall(r"^\.PHONY: (\w+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in documents() for name in re.findall(r"`make (\w+)", path.read_text())}
    assert named <= targets
