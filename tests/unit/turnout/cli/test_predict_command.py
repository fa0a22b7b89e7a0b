"""`turnout predict`: rows from files, types from metadata, and exit statuses."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from turnout.cli import main
from turnout.cli.output import CommandFailed
from turnout.cli.predict import read_rows

INPUTS = [
    {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
    {"name": "delay", "datatype": "FP64", "shape": [-1]},
    {"name": "seats", "datatype": "INT64", "shape": [-1]},
    {"name": "late", "datatype": "BOOL", "shape": [-1]},
]


def _rows(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return read_rows(path, INPUTS)


def test_csv_cells_get_the_types_of_their_inputs(tmp_path):
    """Text stays text, numbers become numbers, and an empty cell is missing."""
    rows = _rows(tmp_path, "rows.csv", "carrier,delay,seats,late\nUA,1.5,149,true\n007,,9007199254740993,0\n")
    assert rows == [
        {"carrier": "UA", "delay": 1.5, "seats": 149, "late": True},
        {"carrier": "007", "delay": None, "seats": 9007199254740993, "late": False},
    ]


def test_json_rows_are_a_list_or_one_object(tmp_path):
    """Both forms mean the same."""
    assert _rows(tmp_path, "a.json", '[{"delay": 1}]') == _rows(tmp_path, "b.json", '{"delay": 1}') == [{"delay": 1}]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "delay\nmany\n", "line 2, column 'delay': 'many' is no number; the input is FP64"),
        ("a.csv", "seats\n1.5\n", "line 2, column 'seats': '1.5' is no whole number; the input is INT64"),
        ("a.csv", "late\nmaybe\n", "line 2, column 'late': 'maybe' is not true or false"),
        ("a.csv", "delay,seats\n1\n", "line 2 does not have as many cells as the header"),
        ("a.csv", "delay\n", "it has no rows"),
        ("a.csv", "dely\n1\n", "column 'dely' is no input of the route"),
        ("a.json", "[1]", "JSON rows are a list of objects, or one object"),
        ("a.csv", "delay\n1\nnan\n", "line 3, column 'delay': nan is no number that JSON has"),
        ("a.json", '[{"delay": NaN}]', "NaN is no number that JSON has"),
        ("a.json", '[{"delay": 1e999}]', "1e999 is no number that JSON has"),
        ("a.json", '[{"delay": 1}, {"seats": 1}]', "row 1 has other columns than row 0"),
    ],
)
def test_a_file_that_is_no_rows_is_named_with_its_fault(tmp_path, name, text, reason):
    """The message names file, line and column; the status is that of wrong usage."""
    with pytest.raises(CommandFailed) as caught:
        _rows(tmp_path, name, text)
    assert caught.value.message.startswith(str(tmp_path / name))
    assert reason in caught.value.message
    assert caught.value.code == 2


@pytest.fixture
def server():
    """Serve one route that answers two outputs with `marks` for headers, and remember what it is asked."""
    asked, marks = [], {"turnout-version": "delays@2"}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def _answer(self, document, status=200, headers=None):
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            known = "/v2/models/delays" in self.path
            self._answer(
                {"inputs": INPUTS} if known else {"error": "Request for unknown model: 'x' is not found"},
                200 if known else 404,
            )

        def do_POST(self):
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            outputs = [
                {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 1]},
                {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "data": [0.75, 0.25, 0.1, 0.9]},
            ]
            self._answer({"outputs": outputs}, headers=marks)

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", asked, marks
        http.shutdown()


def _run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main.run(arguments)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_answers_come_as_a_table_with_a_line_a_row(server, tmp_path, capsys):
    """Only the columns that the file has are sent; an output of several values shows them all."""
    url, asked, _ = server
    (tmp_path / "rows.csv").write_text("delay,seats\n1,2\n3,4\n")
    code, out, _ = _run(capsys, "predict", "delays@2", "-f", str(tmp_path / "rows.csv"), "--url", url)
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "row label probabilities" in lines
    assert "1 1 0.1, 0.9" in lines
    path, body = asked[0]
    assert path == "/v2/models/delays/versions/2/infer"
    assert body["inputs"] == [
        {"name": "delay", "datatype": "FP64", "shape": [2], "data": [1.0, 3.0]},
        {"name": "seats", "datatype": "INT64", "shape": [2], "data": [2, 4]},
    ]


@pytest.mark.parametrize(
    ("marks", "line"),
    [
        ({"turnout-version": "delays@2"}, "answered by delays@2"),
        ({"turnout-version": "delays@1", "turnout-fallback": "previous"}, "answered by delays@1 (fallback: previous)"),
        ({"turnout-fallback": "value"}, "answered by the route's constant (fallback: value)"),
    ],
)
def test_the_version_that_answered_is_told_and_a_fallback_marked(server, tmp_path, capsys, marks, line):
    """Below the table, and in JSON beside the answer under the headers' names."""
    url, _, told = server
    told.clear()
    told.update(marks)
    (tmp_path / "rows.csv").write_text("delay\n1\n2\n")
    asked = ("predict", "delays", "-f", str(tmp_path / "rows.csv"), "--url", url)
    code, out, _ = _run(capsys, *asked)
    assert (code, out.splitlines()[-1]) == (0, line)
    code, out, _ = _run(capsys, *asked, "--output", "json")
    document = json.loads(out)
    assert [output["name"] for output in document.pop("outputs")] == ["label", "probabilities"]
    assert (code, document) == (0, marks)


def test_controls_port_is_told_from_the_doors(server, tmp_path, capsys, monkeypatch):
    """Errors in control's form show that the wrong port was asked."""
    (tmp_path / "rows.csv").write_text("delay\n1\n")

    def of_control(_self, _method, _path, **_body):
        return httpx.Response(404, json={"error": "path '/v2' is not found", "code": "not_found"})

    monkeypatch.setattr(httpx.Client, "request", of_control)
    code, _, err = _run(capsys, "predict", "x", "-f", str(tmp_path / "rows.csv"), "--url", server[0])
    assert (code, err) == (
        1,
        f"turnout: {server[0]} is control; predict asks the HTTP door, port 8080 unless changed\n",
    )


def test_a_refusal_is_status_1_in_both_forms(server, tmp_path, capsys):
    """Prose goes to stderr; with --output json stdout carries one document with the error."""
    (tmp_path / "rows.csv").write_text("delay\n1\n")
    asked = ("predict", "x", "-f", str(tmp_path / "rows.csv"), "--url", server[0])
    code, out, err = _run(capsys, *asked)
    assert (code, out) == (1, "")
    assert err == "turnout: Request for unknown model: 'x' is not found\n"
    code, out, err = _run(capsys, *asked, "--output", "json")
    assert (code, err) == (1, "")
    assert json.loads(out) == {"error": "Request for unknown model: 'x' is not found"}


def test_a_server_out_of_reach_is_status_3(tmp_path, capsys):
    """Nobody listens: the message names the address."""
    (tmp_path / "rows.csv").write_text("delay\n1\n")
    code, _, err = _run(capsys, "predict", "x", "-f", str(tmp_path / "rows.csv"), "--url", "http://127.0.0.1:1")
    assert code == 3
    assert "http://127.0.0.1:1 is out of reach" in err


def test_an_address_that_is_none_is_wrong_usage(tmp_path, capsys):
    """The message names it; no traceback."""
    (tmp_path / "rows.csv").write_text("delay\n1\n")
    code, _, err = _run(capsys, "predict", "x", "-f", str(tmp_path / "rows.csv"), "--url", "http://[::")
    assert code == 2
    assert "--url http://[::" in err


def test_wrong_usage_is_status_2_and_json_where_that_is_asked(capsys):
    """A missing option is named; no prose mixes into a JSON answer."""
    assert _run(capsys, "predict", "x")[0] == 2
    code, out, err = _run(capsys, "predict", "x", "--output=json")
    assert (code, err) == (2, "")
    assert "file" in json.loads(out)["error"].lower()


def test_the_address_may_come_from_the_environment(server, tmp_path, capsys, monkeypatch):
    """TURNOUT_PREDICT_URL stands for --url; TURNOUT_URL is control's."""
    monkeypatch.setenv("TURNOUT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TURNOUT_PREDICT_URL", server[0])
    (tmp_path / "rows.csv").write_text("delay\n1\n2\n")
    assert _run(capsys, "predict", "delays", "-f", str(tmp_path / "rows.csv"))[0] == 0
