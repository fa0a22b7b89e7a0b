"""uvicorn's own tests of its HTTP/1.1 protocol, from its source release, run against the door's protocol class."""

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLUGIN = Path(__file__).parent / "uvicorn_plugin"
RELEASE = f"uvicorn-{version('uvicorn')}"

# What fails, and why it must.
OUR_WORDS = "the door refuses in JSON by one table, not in plain text"
OUR_LIMIT = "headers have a limit here, uvicorn's have none"
SILENT = "an offer to upgrade is passed over without a warning: Java's client makes one with each first request"
EXCEPTIONS = {
    "test_keepalive_timeout_with_pipelined_websocket_upgrade[httptools-websockets-sansio]": "no WebSockets here",
    "test_max_concurrency[httptools]": OUR_WORDS,
    "test_invalid_http_request[httptools-invalid-method]": OUR_WORDS,
    "test_invalid_http_request[httptools-invalid-path]": OUR_WORDS,
    "test_invalid_http_request[httptools-invalid-http-version]": OUR_WORDS,
    "test_huge_headers_httptools_will_pass": OUR_LIMIT,
    "test_huge_headers_httptools": OUR_LIMIT,
    "test_unsupported_ws_upgrade_request_warn_on_auto[httptools]": SILENT,
    "test_header_upgrade_is_not_websocket_depend_installed[httptools]": SILENT,
    "test_header_upgrade_is_websocket_depend_not_installed[httptools]": SILENT,
}


@pytest.fixture(scope="module")
def checkout():
    """The source release of the installed uvicorn, checked by the hash that the requirements pin."""
    folder = ROOT / "build" / "sources"
    if not (folder / RELEASE / "tests").is_dir():
        lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
        start = next(at for at, line in enumerate(lines) if line.startswith("uvicorn=="))
        stop = next(at for at in range(start + 1, len(lines)) if not lines[at].lstrip().startswith("--hash"))
        folder.mkdir(parents=True, exist_ok=True)
        pinned = folder / "uvicorn.txt"
        pinned.write_text("\n".join(lines[start:stop]).rstrip(" \\") + "\n")
        download = [
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--no-build-isolation",
            "--require-hashes",
        ]
        subprocess.run(
            [sys.executable, "-m", *download, "--requirement", str(pinned), "--dest", str(folder)],
            check=True,
            timeout=300,
        )
        with tarfile.open(folder / f"{RELEASE}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return folder / RELEASE


def test_uvicorns_own_http_tests_pass(checkout, tmp_path):
    """All of them pass but those that are listed with a reason, and those fail still."""
    results = tmp_path / "results.xml"
    plugins = ["-p", "turnout_protocol", "-p", "no:asyncio", "-p", "no:randomly", "-p", "no:cacheprovider"]
    chosen = ["tests/protocols/test_http.py", "-k", "httptools or not (h11 or zttp)"]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *chosen,
            *plugins,
            "-q",
            "-W",
            "ignore",
            "--override-ini",
            "addopts=",
            f"--junitxml={results}",
        ],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": f"{PLUGIN}:{checkout}", "PYTEST_ADDOPTS": ""},
        stdout=subprocess.DEVNULL,
        check=False,
        timeout=300,
    )
    cases = list(ET.parse(results).iter("testcase"))
    failed = {case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None}
    assert failed == EXCEPTIONS.keys()
    assert len([case for case in cases if "httptools" in str(case.get("name"))]) - len(failed) >= 70
