"""Tensors in JSON: what is read, what is refused and in which words."""

import json
import re

import msgspec
import numpy as np
import pytest

from turnout.core import json_tensor
from turnout.core.errors import InvalidInput, ModelFault, NonFinite
from turnout.core.tensor import Datatype, Tensor

JSON_DATATYPES = [datatype for datatype in Datatype if datatype not in (Datatype.FP16, Datatype.BF16)]


@pytest.fixture(params=[4, 1 << 20], autouse=True, ids=["by pieces", "at once"])
def _piece_bytes(request, monkeypatch):
    """Read everything in both ways: nobody can tell them apart."""
    monkeypatch.setattr(json_tensor, "_PIECE_BYTES", request.param)


def read(datatype, shape, data):
    """Decode `data` as tensor x."""
    return json_tensor.decode("x", Datatype(datatype), shape, data)


@pytest.mark.parametrize("data", [b"[1,2,3,4,5,6]", b"[[1,2,3],[4,5,6]]", b" [ [1 ,2,3], [4,5,6] ] "])
def test_flat_and_nested_data_are_one_tensor(data):
    """Row-major flat data and data nested like the shape read the same."""
    tensor = read("INT32", (2, 3), data)
    assert tensor.shape == (2, 3)
    assert tensor.array.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tensor.array.dtype == np.int32


@pytest.mark.parametrize("data", [b"[[[1],[2]],[[3],[4]]]", b"[1,2,3,4]"])
def test_three_axes_nest(data):
    """Any rank nests."""
    assert read("FP64", (2, 2, 1), data).array.tolist() == [[[1.0], [2.0]], [[3.0], [4.0]]]


@pytest.mark.parametrize(
    ("shape", "data"),
    [((0,), b"[]"), ((0, 3), b"[]"), ((2, 0), b"[[],[]]"), ((2, 0), b"[]"), ((), b"[7]"), ((1, 1), b"[[7]]")],
)
def test_zero_sized_and_scalar_shapes_are_read(shape, data):
    """An axis of length 0 and a shape without axes are shapes like others."""
    assert read("INT64", shape, data).shape == shape


@pytest.mark.parametrize(
    ("shape", "data", "reason"),
    [
        ((2, 2), b"[[1,2],[3]]", "data is ragged, axis 1 has lengths from 1 to 2"),
        ((2, 2), b"[[1,2,3],[4,5,6]]", "axis 1 of the data has length 3, shape [2, 2] says 2"),
        ((2, 2), b"[[1,2]]", "axis 0 of the data has length 1, shape [2, 2] says 2"),
        ((2, 2), b"[[1,2],3]", "data is ragged, axis 1 holds lists and ints"),
        ((2, 1, 2), b"[[[1,2]],[[3]]]", "data is ragged, axis 2 has lengths from 1 to 2"),
        ((2,), b"[[1,2]]", "data is nested deeper than shape [2]"),
        ((1, 2), b"[[[1,2]]]", "data is nested deeper than shape [1, 2]"),
        ((3,), b"[1,2]", "shape [3] takes 3 elements, got 2"),
        ((), b"[]", "shape [] takes 1 elements, got 0"),
        ((1,), b"7", "data must be a JSON array"),
        ((1,), b'"text"', "data must be a JSON array"),
        ((1,), b"null", "data must be a JSON array"),
        ((1,), b'{"a":1}', "data must be a JSON array"),
        ((1,), b"", "data is no JSON array"),
        ((1,), b"[1", "data is no JSON array"),
    ],
)
def test_ill_shaped_data_is_refused_by_axis(shape, data, reason):
    """Ragged, miscounted and wrongly nested data name the tensor and the axis."""
    with pytest.raises(InvalidInput) as refusal:
        read("INT64", shape, data)
    assert refusal.value.message.startswith(f"tensor 'x': {reason}")


@pytest.mark.parametrize("datatype", [d for d in JSON_DATATYPES if d.is_integer])
def test_integers_reach_their_limits_and_no_further(datatype):
    """The least and the greatest value are exact; one beyond is refused, never wrapped."""
    limits = np.iinfo(datatype.dtype)
    low, high = int(limits.min), int(limits.max)
    assert read(datatype, (2,), f"[{low},{high}]".encode()).array.tolist() == [low, high]
    for value in (low - 1, high + 1, 2**70, -(2**70), 10**5000):
        with pytest.raises(InvalidInput, match=rf"tensor 'x': element 1 is out of range for {datatype}$"):
            read(datatype, (2,), b"[0,1" + b"0" * 5000 + b"]" if value == 10**5000 else f"[0,{value}]".encode())


@pytest.mark.parametrize("literal", ["3.0", "3.5", "1e2", "-0.0"])
def test_a_fraction_is_no_integer(literal):
    """3.0 is refused for integers like 3.5: what is written with a point or exponent is a number."""
    with pytest.raises(InvalidInput, match=r"tensor 'x': element 0 must be an integer, got float"):
        read("INT64", (1,), f"[{literal}]".encode())


@pytest.mark.parametrize(
    ("datatype", "literal", "reason"),
    [
        ("INT64", "true", "element 0 must be an integer, got bool"),
        ("INT64", '"1"', "element 0 must be an integer, got str"),
        ("INT64", "null", "element 0 is null; INT64 takes no missing values"),
        ("FP32", "true", "element 0 must be a number, got bool"),
        ("FP64", '"1.5"', "element 0 must be a number, got str"),
        ("FP64", '{"b64":""}', "element 0 must be a number, got object"),
        ("BOOL", "1", "element 0 must be true or false, got int"),
        ("BOOL", '"true"', "element 0 must be true or false, got str"),
        ("BOOL", "null", "element 0 is null; BOOL takes no missing values"),
        ("BYTES", "1", "element 0 must be a string, got int"),
        ("BYTES", "false", "element 0 must be a string, got bool"),
    ],
)
def test_nothing_is_coerced(datatype, literal, reason):
    """Booleans, numbers and strings are themselves."""
    with pytest.raises(InvalidInput) as refusal:
        read(datatype, (1,), f"[{literal}]".encode())
    assert refusal.value.message.startswith(f"tensor 'x': {reason}")


def test_the_element_at_fault_is_found_in_nested_data():
    """A fault deep inside names its row-major position."""
    with pytest.raises(InvalidInput, match="element 5 must be a number"):
        read("FP32", (2, 3), b'[[1,2,3],[4,5,"6"]]')


@pytest.mark.parametrize(
    ("datatype", "literal"),
    [("FP64", "1e400"), ("FP64", "-1e400"), ("FP32", "1e39"), ("FP32", "3.4028235677973366e38"), ("FP32", "-1e39")],
)
def test_numbers_that_overflow_are_refused(datatype, literal):
    """A number beyond the datatype does not become infinity."""
    with pytest.raises(NonFinite, match=f"tensor 'x': element 0 overflows {datatype}"):
        read(datatype, (1,), f"[{literal}]".encode())


def test_the_greatest_fp32_is_read():
    """What rounds to the largest finite FP32 is that."""
    assert read("FP32", (1,), b"[3.4028235677973362e38]").array[0] == np.finfo(np.float32).max


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "-NaN"])
def test_non_finite_tokens_are_refused_with_the_way_out(token):
    """NaN and Infinity are no JSON; the text says what to send."""
    with pytest.raises(NonFinite, match="tensor 'x': NaN and Infinity are not JSON; send null"):
        read("FP64", (2,), f"[1,{token}]".encode())


def test_null_is_nan_in_floats_and_missing_in_strings():
    """A missing number is NaN, a missing string is None."""
    assert np.isnan(read("FP32", (2,), b"[null,1]").array).tolist() == [True, False]
    assert np.isnan(read("FP64", (1, 2), b"[[1,null]]").array).tolist() == [[False, True]]
    assert read("BYTES", (2,), b'[null,""]').array.tolist() == [None, b""]


def test_whole_numbers_in_floats_are_the_nearest_double():
    """2^70 and 2^53+1 are numbers like others where the datatype is floating-point."""
    assert read("FP64", (2,), b"[1180591620717411303424,9007199254740993]").array.tolist() == [2.0**70, 2.0**53]


@pytest.mark.parametrize("datatype", [Datatype.FP16, Datatype.BF16])
def test_half_precision_has_no_json_form(datatype):
    """FP16 and BF16 travel as raw bytes only, in both directions."""
    with pytest.raises(InvalidInput, match=f"tensor 'x': {datatype} has no JSON form; use the binary tensor extension"):
        read(datatype, (1,), b"[1]")
    with pytest.raises(InvalidInput, match="has no JSON form"):
        json_tensor.encode(Tensor(datatype, np.zeros(1, datatype.dtype)), name="x", nonfinite_null=False)


@pytest.mark.parametrize("depth", [101, 5000])
def test_depth_never_exhausts_the_stack(depth):
    """Nesting without end is the caller's mistake."""
    with pytest.raises(InvalidInput, match="tensor 'x': data is nested"):
        read("INT64", (1, 1), b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("data", [b'["\xff"]', rb'["\ud800"]', b'["a\nb"]'])
def test_broken_text_is_refused(data):
    """Bytes that are no UTF-8, half a surrogate pair and raw control characters are no JSON strings."""
    with pytest.raises(InvalidInput, match="tensor 'x': data is"):
        read("BYTES", (1,), data)


@pytest.mark.parametrize("shape", [(60,), (20, 3), (3, 20), (3, 5, 4)])
@pytest.mark.parametrize("literal", ["true", "1e400", '"1"', "[1]", "2.5,2.5", "", "NaN", "2.5 2.5", "]", "{}"])
def test_a_fault_amid_many_numbers_is_named_the_same(shape, literal, monkeypatch):
    """Big data is read piece by piece, and refused in the words of data that is read at once."""
    text = json.dumps(np.full(shape, 7.25).tolist()).encode()
    at = [found.start() for found in re.finditer(b"7.25", text)][41]
    broken = text[:at] + literal.encode() + text[at + 4 :]
    words = []
    for size in (4, 1 << 20):
        monkeypatch.setattr(json_tensor, "_PIECE_BYTES", size)
        with pytest.raises(InvalidInput) as refusal:
            read("FP64", shape, broken)
        words.append(refusal.value.message)
    assert words[0] == words[1]


def test_a_raw_slice_is_read_without_its_document():
    """The envelope hands over the slice that it skipped."""
    raw = msgspec.json.decode(b'{"data":[1.5]}', type=dict[str, msgspec.Raw])["data"]
    assert read("FP32", (1,), raw).array.tolist() == [1.5]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_answer_is_the_models_fault_unless_null_is_asked_for(value):
    """JSON has no NaN: a fault, or null on request."""
    tensor = Tensor.of(np.array([[1.0, value]]))
    with pytest.raises(ModelFault, match="tensor 'y': element 1 of the answer is not finite"):
        json_tensor.encode(tensor, name="y", nonfinite_null=False)
    assert json_tensor.encode(tensor, name="y", nonfinite_null=True) == b"[1.0,null]"


def test_text_answers_are_strings_and_other_bytes_a_named_refusal():
    """Bytes that are not UTF-8 name the extension that carries them."""
    tensor = Tensor.of(np.array([b"null", None, "\u00e9\x00".encode()], dtype=object))
    assert json_tensor.encode(tensor, name="y", nonfinite_null=False) == '["null",null,"é\\u0000"]'.encode()
    broken = Tensor.of(np.array([b"a", b"\xff"], dtype=object))
    with pytest.raises(InvalidInput, match=r"tensor 'y': element 1 is not UTF-8 .* the binary tensor extension"):
        json_tensor.encode(broken, name="y", nonfinite_null=False)


@pytest.mark.parametrize("nonfinite_null", [False, True])
def test_many_numbers_are_written_like_few(nonfinite_null):
    """An answer that is written in pieces is one list of all numbers; a NaN in any piece is found."""
    values = np.arange(40_000) / 8
    text = json_tensor.encode(Tensor.of(values), name="y", nonfinite_null=nonfinite_null)
    assert json.loads(text) == values.tolist()
    values[-1] = np.nan
    if nonfinite_null:
        assert json.loads(json_tensor.encode(Tensor.of(values), name="y", nonfinite_null=True))[-1] is None
    else:
        with pytest.raises(ModelFault, match="element 39999"):
            json_tensor.encode(Tensor.of(values), name="y", nonfinite_null=False)
