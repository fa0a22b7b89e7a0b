"""The pages of docs/reference that are made from code: configuration files, errors, control's metrics."""

import inspect
from collections.abc import Iterator
from typing import Final

from turnout.configuration import Settings
from turnout.control.api import http
from turnout.control.metrics import ControlMetrics
from turnout.control.publish.routes_keys import RoutesFile
from turnout.core.errors import ErrorCode, Internal, TurnoutError
from turnout.core.manifest import OPTIONS, Manifest
from turnout.core.status import status_of
from turnout.reference.keys import table

_MADE: Final = "<!-- Made by `python -m turnout.reference` from the code; a test compares. -->"
_YAML: Final = """\
YAML 1.2's core schema: only `true` and `false` are booleans, dates stay text. Unknown keys, duplicate keys, aliases and
tags are refused with their line."""
_SPECS: Final = """\
A tensor of a signature is `{name: x, datatype: FP32, shape: [-1, 30], nullable: false}`. In `shape`, -1 is any length
and axis 0 is rows; `nullable` says that BYTES elements may be missing."""

TURNOUT: Final = f"""\
# turnout.yaml

Read by `turnout serve --config`, `turnout gateway --config` and `turnout control --config`. Keys are called like the
flags, with `_` for `-`; what the command line says goes before the file, the file before the default. Paths are
relative to the file. `turnout config check turnout.yaml` tells line and reason of a fault.

{_YAML}
"""

MODEL: Final = f"""\
# model.yaml

Lies in a version's folder, or in the model's folder as the default of its versions; it may be left out when the one
artifact tells the runtime: `.onnx` (onnx); `.skops`, `.joblib`, `.pkl` (sklearn); `.jar` or a saved Spark PipelineModel
folder (jvm).

{_YAML}

```yaml
runtime: onnx
artifact: model.onnx
rename: {{outputs: {{output_probability: probabilities}}}}
cast: {{inputs: {{distance: FP64}}}}
golden: golden.json
metrics: {{value: [0.1, 0.5, 0.9]}}
```

To a version belong its artifact, files whose name begins with the artifact's (`model.onnx.data`), the golden file and
listed jars. Its digest covers those and `runtime`, `artifact`, `signature`, `rename`, `cast`, `options`, `golden`, and
nothing else: other keys may change under the same number, and count from the next load on. Names that begin with `.` or
`_` are ignored, below an artifact folder those with `.` and `__pycache__`. Links must stay inside FOLDER.

A folder is taken when it is at rest: nothing in it changed for a second (`control.quiet_s` in turnout.yaml; longer when
it was filled slowly), and nobody has a file of it open for writing, as far as the system tells us: it does so for files
of our own user, and to root. A copy that may pause for several seconds is best made beside it under a name that begins
with `.`, and renamed.

What `golden` names is described in [golden.json](golden.md).

{_SPECS}
"""

ROUTES: Final = f"""\
# routes.yaml

Lies in FOLDER and is watched: it takes effect whole, or is refused whole with line and reason while the old routes go
on. An empty or deleted file changes nothing; `routes: {{}}` means none. Versions are written `model@number`; a bare
number is a version of the model named as the route. A version that is not known yet has its model's folder read again.

A start whose file is refused goes on with the routes of the run before. Where there are none, nothing is routed and the
machine is not ready, for that reason, until the file is mended. A first start takes a file that names a version whose
folder is refused: that route is not ready and neither is the machine, the others are served.

{_YAML}

```yaml
routes:
  flight-delay:
    champion: 2
    weights: {{2: 9500, 1: 500}}
    shadows: [{{version: 3, compare: {{label: exact, probabilities: {{abs: 0.001}}}}}}]
    sticky: {{header: x-user-id}}
    match: [{{header: {{x-cohort: beta}}, version: 3}}]
    fallback: [previous, {{value: {{label: 0}}}}]
```

All versions behind a route answer the same outputs and take its inputs or some of them, and declare equal
`metrics.value`. Versions that a file newly names, or gives more weight, must be ready on every live gateway before it
takes effect; giving less never waits.

{_SPECS}
"""

ERRORS: Final = """\
# Errors

Every error of a door and of the control API is `{"error": "…"}` with a status of this table; control's answers carry
`code` too. `retry`: the same request may succeed later. `outcome` is the label in `turnout_requests_total`. `blame`
says whose fault it is; only a variant's faults count against a version.
"""

METRICS: Final = """\
# Metrics of the control plane

Port 8090 answers `/metrics` for the control process.
"""


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    options = "\n\n".join(f"## options of {runtime}\n\n{table(kind)}" for runtime, kind in OPTIONS.items())
    return {
        "turnout-yaml.md": _page(TURNOUT, table(Settings)),
        "model-yaml.md": _page(MODEL, table(Manifest), options),
        "routes-yaml.md": _page(ROUTES, table(RoutesFile)),
        "errors.md": _page(ERRORS, _errors()),
        "control-api.md": _page("# The control API\n" + _control_api()),
        "control-metrics.md": _page(METRICS, _metrics()),
    }


def _page(*parts: str) -> str:
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, _MADE, rest.strip(), *parts[1:]]) + "\n"


def _control_api() -> str:
    """Return what the module of the API says of itself, without its first line."""
    return inspect.cleandoc(http.__doc__ or "").partition("\n\n")[2]


def _errors() -> str:
    rows = ["| code | HTTP | gRPC | outcome | retry | blame | meaning |", "|---|---|---|---|---|---|---|"]
    for error in _classes():
        status = status_of(error.__new__(error))
        meaning = (error.__doc__ or "").partition("\n")[0]
        retry = "yes" if error.retryable else "no"
        cells = (f"`{error.code}`", str(status.http), status.grpc.name, f"`{status.outcome}`", retry, error.blame)
        rows.append(f"| {' | '.join(cells)} | {meaning} |")
    return "\n".join(rows)


def _classes() -> Iterator[type[TurnoutError]]:
    """Yield the class that stands for each code, in the order of the codes."""
    found: dict[ErrorCode, type[TurnoutError]] = {ErrorCode.INTERNAL: Internal}
    left = list(TurnoutError.__subclasses__())
    while left:
        error = left.pop()
        found.setdefault(error.code, error)
        left += error.__subclasses__()
    yield from (found[code] for code in ErrorCode)


def _metrics() -> str:
    rows = ["| metric | kind | labels | what it counts |", "|---|---|---|---|"]
    for family in ControlMetrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels})
        named = ", ".join(f"`{label}`" for label in labels) or "none"
        rows.append(f"| `{name}` | {family.type} | {named} | {family.documentation} |")
    return "\n".join(rows)
