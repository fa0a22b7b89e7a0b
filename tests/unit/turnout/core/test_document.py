"""YAML documents: lines, nearest names, and what is refused."""

import pytest

from turnout.core.document import DocumentError, parse
from turnout.core.manifest import Manifest, OnnxOptions
from turnout.core.yaml_text import MAX_DEPTH


def refusal(text: str) -> str:
    """Return the complaint about a `model.yaml`."""
    with pytest.raises(DocumentError) as caught:
        parse(text, "model.yaml").decode(Manifest)
    return str(caught.value)


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_name_of_its_place():
    """The hint comes from the keys that are known where the wrong one stands."""
    assert refusal("runtime: onnx\nbatchng: false") == "model.yaml:2: unknown key 'batchng'; did you mean 'batching'?"
    text = "limits:\n  in_flight: 2\n  queue_row: 3"
    assert refusal(text) == "model.yaml:3: unknown key 'queue_row'; did you mean 'queue_rows'?"


def test_an_unknown_key_like_no_other_lists_what_is_known():
    """Without a near name, the known keys of the place are told."""
    known = "failures, in_flight, queue_bytes, queue_rows"
    assert refusal("limits: {zzz: 1}") == f"model.yaml:1: unknown key 'zzz'; known here: {known}"


def test_the_faulty_one_of_several_keys_is_found():
    """Where msgspec only says `[...]`, the line is that of the entry at fault, also when keys hold dots."""
    text = "cast:\n  inputs:\n    a.b: FP32\n    c.d: FP31\n    e: FP64"
    assert refusal(text).startswith("model.yaml:4: cast.inputs.c.d: invalid enum value 'FP31'; one of BOOL, ")


def test_list_positions_are_told():
    """A fault inside a list names the position and its line."""
    text = "signature:\n  inputs:\n    - {name: x, datatype: FP32, shape: [-1]}\n    - {name: y, datatype: FP32}"
    assert refusal(text) == "model.yaml:4: signature.inputs[1]: key 'shape' is missing"


def test_types_are_told_in_yaml_words():
    """Expected and found types are written as mapping, list, text and number."""
    assert refusal("limits: []") == "model.yaml:1: limits: expected a mapping, got a list"
    assert refusal("model: 3").startswith("model.yaml:1: model: expected text or nothing, got a whole number")
    assert refusal("- 1") == "model.yaml:1: expected a mapping, got a list"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2\na: 3", 3, "key 'a' appears twice"),
        ("a: &x 1\nb: *x", 2, "aliases are not taken"),
        ("a: &x [*x]", 1, "aliases are not taken"),
        ("a: !!binary aGk=", 1, "tags are not taken (tag:yaml.org,2002:binary)"),
        ("a: !thing {}", 1, "tags are not taken (!thing)"),
        ("b:\n  <<: {a: 1}", 2, "merge keys are not taken"),
        ("? [a]\n: 1", 1, "keys must be plain text"),
        ("a: 1\n---\nb: 2", 2, "a second document; one file holds one"),
        ("[" * 100_000, 1, f"nested deeper than {MAX_DEPTH}"),
        ("- " * 5_000 + "1", 1, f"nested deeper than {MAX_DEPTH}"),
        ("a: 1\nb: 'x", 2, "not YAML: "),
        ("a: b: c", 1, "not YAML: "),
        ("a: \x00", 1, "not YAML: "),
        ("a: " + "9" * 5_000, 1, "a whole number beyond 64 bits"),
        ("a: 18446744073709551616", 1, "a whole number beyond 64 bits"),
        ("a: 1e999", 1, "1e999 is beyond the largest number"),
    ],
)
def test_what_yaml_allows_and_we_refuse(text, line, reason):
    """Repeated keys, aliases, tags, odd keys, deep nesting and broken text are refused with their line."""
    with pytest.raises(DocumentError) as caught:
        parse(text, "f")
    assert caught.value.line == line
    assert caught.value.reason.startswith(reason)


def test_scalars_follow_the_core_schema():
    """Only true and false are booleans, a leading zero means nothing; dates, clock times and infinity stay text."""
    text = "a: 010\nb: yes\nc: 2026-01-01\nd: 1e3\ne: .inf\nf: ~\ng: 0x10\nh: '3'\ni: 1:30\nj:\nk: true\nl: -.5"
    assert parse(text, "f").data == {
        "a": 10,
        "b": "yes",
        "c": "2026-01-01",
        "d": 1000.0,
        "e": ".inf",
        "f": None,
        "g": 16,
        "h": "3",
        "i": "1:30",
        "j": None,
        "k": True,
        "l": -0.5,
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_an_empty_document_is_an_empty_mapping(text):
    """Nothing, comments and null all read as no keys."""
    assert parse(text, "f").data == {}


def test_lines_of_absent_values_are_those_of_the_nearest_parent():
    """A complaint about something that is not there points at what should hold it."""
    document = parse("routes:\n  my.model:\n    champion: 1", "f")
    assert document.line(("routes", "my.model", "champion")) == 3
    assert document.line(("routes", "my.model", "weights", "x")) == 2
    assert document.line(("nowhere",)) == 1


def test_a_part_keeps_its_lines_and_its_place():
    """A value decoded on its own complains as if it were decoded in place."""
    document = parse("runtime: onnx\noptions:\n  threads: many", "model.yaml")
    with pytest.raises(DocumentError) as caught:
        document.part("options").decode(OnnxOptions)
    assert str(caught.value) == "model.yaml:3: options.threads: expected a whole number, got text"
    assert document.part("absent").decode(OnnxOptions) == OnnxOptions()
