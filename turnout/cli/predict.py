"""`turnout predict`: rows of a JSON or CSV file to a route, and its answers as a table or a JSON document."""

import csv
import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import httpx
import typer

from turnout.cli.output import (
    DOOR_URL,
    HEADER_FALLBACK,
    HEADER_REQUEST_ID,
    HEADER_VERSION,
    CommandFailed,
    DoorUrlOption,
    ExitCode,
    Output,
    OutputOption,
    print_json,
    print_rows,
)

Row: TypeAlias = dict[str, Any]
_TIMEOUT_S: Final = 60.0
_MARKS: Final = (HEADER_VERSION, HEADER_FALLBACK)
_TRUE: Final = {"true": True, "1": True, "false": False, "0": False}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


def predict(
    route: Annotated[str, typer.Argument(help="Route, or NAME@VERSION for one version of a model.")],
    file: Annotated[
        Path,
        typer.Option("-f", "--file", help="Rows: a CSV file with a header, or JSON: a list of objects, or one object."),
    ],
    url: DoorUrlOption = DOOR_URL,
    output: OutputOption = Output.TEXT,
) -> None:
    """Send rows of a file to a route and print its answers.

    Columns are the route's inputs by name; types come from its metadata. An empty CSV cell is a missing value.
    """
    name, _, number = route.partition("@")
    path = f"/v2/models/{name}" + (f"/versions/{number}" if number else "")
    with _client(url) as http:
        inputs = _ask(http, "GET", path).document["inputs"]
        rows = read_rows(file, inputs)
        request = {"inputs": [_tensor(spec, rows) for spec in inputs if spec["name"] in rows[0]]}
        answer = _ask(http, "POST", f"{path}/infer", request)
    if output is Output.JSON:
        print_json({**answer.document, **answer.marks})
    else:
        print_rows(*_table(answer.document["outputs"]))
        typer.echo(_answered_by(answer.marks))


def read_rows(file: Path, inputs: list[dict[str, Any]]) -> list[Row]:
    """Return the file's rows, CSV cells typed as the inputs say. Raises CommandFailed naming line and column."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows = _csv_rows(text, inputs) if file.suffix.lower() == ".csv" else _json_rows(text)
    except (OSError, ValueError, csv.Error) as error:
        raise CommandFailed(f"{file}: {error}", ExitCode.USAGE) from error
    if not rows:
        raise CommandFailed(f"{file}: it has no rows", ExitCode.USAGE)
    names = set(rows[0])
    for index, row in enumerate(rows):
        if set(row) != names:
            raise CommandFailed(f"{file}: row {index} has other columns than row 0", ExitCode.USAGE)
    unknown = names - {spec["name"] for spec in inputs}
    if unknown:
        raise CommandFailed(f"{file}: column '{min(unknown)}' is no input of the route", ExitCode.USAGE)
    return rows


def _json_rows(text: str) -> list[Row]:
    found = json.loads(text, parse_constant=_finite, parse_float=_finite)
    rows = [found] if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("JSON rows are a list of objects, or one object")
    return rows


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON has; leave a missing one empty in CSV, write null in JSON")
    return number


def _csv_rows(text: str, inputs: list[dict[str, Any]]) -> list[Row]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    types = {spec["name"]: spec["datatype"] for spec in inputs}
    rows: list[Row] = []
    for cells in reader:
        if None in cells or None in cells.values():
            raise ValueError(f"line {reader.line_num} does not have as many cells as the header")
        row: Row = {}
        for name, cell in cells.items():
            try:
                row[name] = _cell(cell, types.get(name, "BYTES"))
            except ValueError as error:
                raise ValueError(f"line {reader.line_num}, column '{name}': {error}") from error
        rows.append(row)
    return rows


def _cell(text: str, datatype: str) -> Any:
    if text == "":
        return None
    if datatype == "BYTES":
        return text
    if datatype == "BOOL":
        if text.lower() not in _TRUE:
            raise ValueError(f"{text!r} is not true or false")
        return _TRUE[text.lower()]
    read = int if datatype.startswith(("INT", "UINT")) else float
    try:
        read(text)
    except ValueError:
        raise ValueError(f"{text!r} is no {'whole ' if read is int else ''}number; the input is {datatype}") from None
    return int(text) if read is int else _finite(text)


def _tensor(spec: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    data = [row[spec["name"]] for row in rows]
    shape, inner = [len(data)], data[0]
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    return {"name": spec["name"], "datatype": spec["datatype"], "shape": shape, "data": data}


def _client(url: str) -> httpx.Client:
    try:
        return httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.InvalidURL as error:
        raise CommandFailed(f"--url {url}: {error}", ExitCode.USAGE) from error


class _Answer(NamedTuple):
    """A document, and the headers that say who answered."""

    document: Any
    marks: dict[str, str]


def _ask(http: httpx.Client, method: str, path: str, body: object = None) -> _Answer:
    try:
        answer = http.request(method, path, json=body)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CommandFailed(f"{http.base_url} is out of reach: {error}", ExitCode.UNREACHABLE) from error
    try:
        document = answer.json()
    except ValueError as error:
        raise CommandFailed(f"{http.base_url}{path} answered {answer.status_code}, not JSON") from error
    told = document if isinstance(document, dict) else {}
    if answer.is_error:
        if "code" in told and HEADER_REQUEST_ID not in answer.headers:  # the form of control's errors
            raise CommandFailed(f"{http.base_url} is control; predict asks the HTTP door, port 8080 unless changed")
        raise CommandFailed(told.get("error", f"status {answer.status_code}"))
    return _Answer(document, {mark: answer.headers[mark] for mark in _MARKS if mark in answer.headers})


def _answered_by(marks: dict[str, str]) -> str:
    """Say which version answered, and whether it is a fallback's answer; a fallback's constant is no version's."""
    version, fallback = marks.get(HEADER_VERSION), marks.get(HEADER_FALLBACK)
    by = version or ("the route's constant" if fallback else "an unnamed version")
    return f"answered by {by}" + (f" (fallback: {fallback})" if fallback else "")


def _table(outputs: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one line a row; an output of several values a row is shown as a list."""
    columns = ["row", *(output["name"] for output in outputs)]
    count = outputs[0]["shape"][0] if outputs else 0
    lines = [[str(row), *(_shown(output, row, count) for output in outputs)] for row in range(count)]
    return columns, lines


def _shown(output: dict[str, Any], row: int, count: int) -> str:
    width = len(output["data"]) // count
    values = output["data"][row * width : (row + 1) * width]
    return ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)
