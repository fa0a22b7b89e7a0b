"""Triton's own client examples, unchanged, and KServe's client, against a real gateway.

Not among the checks of `python -m bench.campaign`, for it needs a checkout of triton-inference-server/client:

    python -m bench.campaign.clients --triton-client DIR [--triton-common DIR]

Without the option it exits 2. `--triton-common` (a checkout of triton-inference-server/common, which the client's own
build fetches) is needed for the C++ examples, beside g++, grpc++, rapidjson and curl; the Java ones need the JDK and
Debian's libhttpasyncclient-java. The Python ones run in an environment of their own with tritonclient[all] and kserve.
An example that cannot be built does not count as passed. Examples of the same name in two languages are two: each goes
through another client library. Those under src/grpc_generated (Go, JavaScript, Java and Scala stubs) are not run.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import venv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import triton_models
from bench.campaign import clients_build
from bench.campaign.harness import ROOT, Campaign, run
from bench.launch import Gateway, serve

BAR: Final = 25
LANGUAGES: Final = ("python", "c++", "java")
WITHIN_S: Final = 180
PACKAGES: Final = ("tritonclient[all]", "kserve", "attrdict", "protobuf<7")
HTTP_PORT, GRPC_PORT = 8000, 8001
PASS, FAIL, NOT_OFFERED, NOT_RUN = "pass", "fail", "not applicable", "not run"
# Parts of names, the first that fits.
WITHOUT: Final = {
    "cudashm": "CUDA shared memory is not offered",
    "shm": "shared memory is not offered",
    "reuse_infer_objects": "shared memory is not offered",
    "sequence": "sequences, with state between requests, are not offered",
    "custom_repeat": "decoupled models, with many answers to a request, are not offered",
}
# What stands behind failures that are ours by decision, said beside the example's own last line.
DECISIONS: Final = {
    "health_metadata": "wants a server named 'triton'; ours says that it is turnout",
    "grpc_explicit_": "reads a raw answer to a typed request; ours has the request's form",
    "simple_http_model_control.py": "load requests cannot override a model's settings, model.yaml has them",
    "simple_grpc_model_control.py": "load requests cannot override a model's settings, model.yaml has them",
    "image_client": "versions declare neither an image layout nor class labels",
}
# Their addresses are written into them.
FIXED: Final = ("memory_growth_test.py", "SimpleInferClient", "SimpleInferPerf", "MemoryGrowthTest")
IMAGES: Final = {
    "src/python/examples/image_client.py": ("-m", "image", "-c", "3"),
    "src/python/examples/grpc_image_client.py": ("-m", "image", "-c", "3"),
    "src/python/examples/ensemble_image_client.py": ("-c", "3"),
    "src/c++/examples/ensemble_image_client": ("-c", "3"),
}
ROWS: Final = ((list(range(16)), [1] * 16), (list(range(100, 116)), [-7] * 16))
SUMS: Final = [[a + sign * b for a, b in zip(*rows, strict=True)] for rows in ROWS for sign in (1, -1)]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one example, and why."""

    name: str
    outcome: str
    reason: str = ""


class Example(msgspec.Struct, frozen=True):
    """One example as it can be run; `source` is its text as shipped, and an empty command has a reason instead."""

    name: str
    source: Path
    command: tuple[str, ...]
    reason: str = ""


def checkout(text: str) -> Path:
    """Return the folder of a checkout. Raises ArgumentTypeError when it has no examples."""
    if not Path(text, "src/python/examples").is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no checkout of triton-inference-server/client")
    return Path(text).resolve()


def make_environment(folder: Path) -> Path:
    """Install the clients into a new environment and return its interpreter."""
    print("installing tritonclient and kserve into an environment of their own", flush=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True, stderr=subprocess.DEVNULL)
    return python


def examples(triton: Path, python: Path, built: Mapping[str, clients_build.Built]) -> list[Example]:
    """Return all examples of the checkout, by name."""
    found = [
        Example(str(path.relative_to(triton)), path, (str(python), str(path)))
        for path in sorted((triton / "src/python/examples").glob("*.py"))
    ]
    for language, suffix in (("src/c++/examples", ".cc"), ("src/java/src/main/java/triton/client/examples", ".java")):
        for path in sorted((triton / language).glob(f"*{suffix}")):
            made = built.get(path.stem) if suffix == ".cc" else built.get("java")
            command = () if made is None else made.command
            if command and suffix == ".java":
                command = (*command, f"triton.client.examples.{path.stem}")
            reason = "" if made is None else made.reason
            found.append(Example(f"{language}/{path.stem}", path, command, reason))
    return found


def attempt(example: Example, gateway: Gateway, picture: Path, *, fixed: bool) -> Outcome:
    """Run one example against the gateway's addresses."""
    name = Path(example.name).name
    for part, reason in WITHOUT.items():
        if part in name:
            return Outcome(example.name, NOT_OFFERED, reason)
    if not example.command:
        return Outcome(example.name, NOT_RUN, example.reason)
    arguments: tuple[str, ...] = ()
    if name not in FIXED:
        arguments = ("-u", gateway.grpc if "grpc" in name else gateway.http)
    elif not fixed:
        return Outcome(example.name, NOT_RUN, f"its address is fixed, and port {HTTP_PORT} or {GRPC_PORT} is taken")
    if example.name in IMAGES:
        arguments = (*IMAGES[example.name], *arguments, str(picture))
    try:
        done = subprocess.run(
            [*example.command, *arguments], capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(example.name, FAIL, f"has not ended within {WITHIN_S} s")
    return judge(example, done)


def judge(example: Example, done: subprocess.CompletedProcess[str]) -> Outcome:
    """Say whether an example passed: exit code 0, no complaint, and its own PASS where its text has one."""
    complaints = [line for line in done.stderr.splitlines() if line.startswith("error:") or "Exception" in line]
    silent = '"PASS' in example.source.read_text() and "PASS" not in done.stdout
    if done.returncode == 0 and not complaints and not silent:
        return Outcome(example.name, PASS)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    reason = f"exit {done.returncode}: {(complaints or said or ['nothing said'])[-1][:200]}"
    name = Path(example.name).name
    behind = [decision for part, decision in DECISIONS.items() if part in name]
    return Outcome(example.name, FAIL, "; ".join([reason, *behind]))


def free(*ports: int) -> bool:
    """Tell whether nobody listens on these ports."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def run_examples(found: Iterable[Example], folder: Path, python: Path, campaign: Campaign) -> list[Outcome]:
    """Run every example; those that load and unload come last, against as many models as they count."""
    controls = [example for example in found if "model_control" in example.name]
    others = [example for example in found if example not in controls]
    models, picture = folder / "models", folder / "picture.png"
    triton_models.write_all(models)
    triton_models.write_picture(picture)
    fixed = free(HTTP_PORT, GRPC_PORT)
    flags = ("--http-port", str(HTTP_PORT), "--grpc-port", str(GRPC_PORT)) if fixed else ()
    outcomes = []
    with serve(models, folder / "state", *flags) as gateway:
        outcomes += [told(attempt(example, gateway, picture, fixed=fixed)) for example in others]
        other_clients(campaign, python, gateway)
        outcomes += [told(attempt(one, gateway, picture, fixed=fixed)) for one in controls if "grpc" in one.name]
        log = gateway.log
    shutil.rmtree(models / triton_models.NAMES[-1])
    with serve(models, folder / "state-of-seven") as gateway:
        outcomes += [told(attempt(one, gateway, picture, fixed=False)) for one in controls if "grpc" not in one.name]
        log += gateway.log
    campaign.equal("tracebacks in the gateway's log", sum("Traceback" in line for line in log), 0)
    return outcomes


def told(outcome: Outcome) -> Outcome:
    """Print an outcome as it comes."""
    print(f"        {outcome.outcome:14}  {outcome.name}  {outcome.reason}", flush=True)
    return outcome


def other_clients(campaign: Campaign, python: Path, gateway: Gateway) -> None:
    """Ask with KServe's client and with tritonclient, each in one process with our own messages."""
    script = str(Path(__file__).with_name("clients_probe.py"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for client in ("tritonclient", "kserve"):
        command = [str(python), script, client, gateway.http, gateway.grpc]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False, env=environment)
        campaign.equal(f"{client} and turnout.core.wire in one process: exit code", done.returncode, 0)
        if done.returncode != 0:
            campaign.note(f"{client} said", done.stderr[-600:])
            continue
        answered: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found = answered["found"]
        campaign.extra["packages"] = answered["versions"]
        campaign.equal(f"turnout.core.wire beside {client}: a descriptor pool of its own", found.pop("own pool"), True)
        if "health" in found:
            campaign.equal(f"{client}: live, ready, model ready by REST and gRPC", found.pop("health"), [True] * 6)
        for form, numbers in found.items():
            campaign.equal(f"{form}: right numbers", numbers == SUMS, True)


def unchanged(folder: Path) -> str:
    """Return the commit of a checkout that differs in nothing from it, else what differs."""
    said = subprocess.run(
        ["git", "-C", str(folder), "status", "--porcelain"], capture_output=True, text=True, check=False
    )
    if said.returncode != 0 or said.stdout:
        return (said.stdout or said.stderr).strip()
    commit = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Run all examples and the other clients; at least 25 examples pass by name."""
    triton: Path = arguments.triton_client
    commit = unchanged(triton)
    campaign.equal("the client's checkout is a commit, unchanged", len(commit) == 40, True)
    campaign.note("triton-inference-server/client", commit)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = make_environment(folder / "environment")
        built = clients_build.build(triton, arguments.triton_common, folder / "build")
        outcomes = run_examples(examples(triton, python, built), folder, python, campaign)
    passed = [outcome.name for outcome in outcomes if outcome.outcome == PASS]
    for language in LANGUAGES:
        counted = Counter(outcome.outcome for outcome in outcomes if outcome.name.startswith(f"src/{language}/"))
        campaign.note(f"{language} examples", dict(counted))
    campaign.note("passed names, each counted once whatever the languages", len({Path(name).stem for name in passed}))
    campaign.extra["outcomes"] = sorted(outcomes, key=lambda outcome: outcome.name)
    campaign.at_least(f"examples that pass ({', '.join(LANGUAGES)}), by name in their folder", len(passed), BAR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton-client", type=checkout, required=True, metavar="DIR", help="checkout of the examples")
    parser.add_argument("--triton-common", type=Path, metavar="DIR", help="checkout with protobuf/ and include/")
    run("clients", check, parser)
