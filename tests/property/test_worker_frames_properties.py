"""Worker frames: whatever is written is read again, however the bytes come; garbage never does more than be refused."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adapters.worker.frames import (
    CODES,
    BadFrame,
    FrameReader,
    FrameType,
    Part,
    join_elements,
    pack,
    split_elements,
    texts_of,
    unpack,
)
from turnout.core.tensor import DTYPES, Datatype, Tensor, equal_bits

NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def tensors(draw):
    """Return any tensor of any datatype."""
    datatype, shape = draw(st.sampled_from(Datatype)), draw(SHAPES)
    count = int(np.prod(shape))
    if datatype is Datatype.BYTES:
        elements = draw(st.lists(st.none() | st.binary(max_size=9), min_size=count, max_size=count))
        return Tensor.from_raw("t", datatype, shape, join_elements(elements))
    if datatype is Datatype.BOOL:
        flags = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        return Tensor.from_raw("t", datatype, shape, bytes(flags))
    size = count * DTYPES[datatype].itemsize
    return Tensor.from_raw("t", datatype, shape, draw(st.binary(min_size=size, max_size=size)))


@st.composite
def frames(draw):
    """Return the description of any frame."""
    named = draw(st.dictionaries(NAMES, tensors(), max_size=4))
    kind, request = draw(st.sampled_from(FrameType)), draw(st.integers(0, 2**64 - 1))
    return kind, request, named, draw(st.integers(0, 2**32 - 1))


def packed(kind, request, named, deadline_ms):
    """Return the bytes of a frame."""
    parts = [Part(name, tensor.datatype, tensor.shape, tensor.raw()) for name, tensor in named.items()]
    return b"".join(pack(kind, request, parts, deadline_ms))


@given(st.lists(frames(), max_size=4), st.data())
def test_frames_survive_any_cutting_of_the_stream(sent, data):
    """Frames come out as they went in, whatever pieces the stream is read in."""
    stream = b"".join(packed(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader, got = FrameReader(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:stop])
    assert len(got) == len(sent)
    for frame, (kind, request, named, deadline_ms) in zip(got, sent, strict=True):
        assert (frame.type, frame.id, frame.deadline_ms) == (kind, request, deadline_ms)
        parts = unpack(frame)
        assert [part.name for part in parts] == list(named)
        for part in parts:
            again = Tensor.from_raw(part.name, Datatype(part.datatype), part.shape, part.data)
            assert equal_bits(again, named[part.name])


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(data):
    """Any bytes are frames, the start of one, or BadFrame; nothing else is raised."""
    try:
        for frame in FrameReader().feed(data):
            unpack(frame)
    except BadFrame:
        return


@given(frames(), st.data())
def test_a_damaged_payload_is_read_or_refused(frame, data):
    """A payload with any byte changed, or cut at any place, is read as something or is BadFrame."""
    whole = bytearray(packed(*frame))[24:]
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    elif whole:
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    header = pack(FrameType.PREDICT, 1)[0]
    (kept,) = FrameReader().feed(len(whole).to_bytes(4, "little") + bytes(header)[4:] + whole)
    try:
        for part in unpack(kept):
            if part.datatype == "BYTES":
                texts_of(part)
    except BadFrame:
        return


@given(st.lists(st.none() | st.binary(max_size=20), max_size=10))
def test_elements_survive(elements):
    """BYTES elements come back as they were, missing ones and empty ones apart."""
    assert split_elements(join_elements(elements), len(elements)) == elements


def test_codes_name_every_datatype():
    """The protocol has a code for each datatype, and none beside."""
    assert set(CODES) == set(Datatype)
    assert sorted(CODES.values()) == list(range(1, 15))
