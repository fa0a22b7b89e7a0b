"""docs/worker-protocol.md against every worker, each a real process: its life, its refusals, its end."""

import struct

import numpy as np
import pytest

from adapters.worker.frames import NO_DEADLINE, FrameType, Part, join_elements, pack
from tests.contract.worker_models import WORKERS
from tests.contract.worker_peer import load_parts, started
from tests.waiting import eventually

HOLD_MS = 400


@pytest.fixture(scope="module", params=sorted(WORKERS))
def model(request, tmp_path_factory):
    """The model of the suite as one kind of worker serves it."""
    return WORKERS[request.param](tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def command(model):
    """The command that starts its worker."""
    return model.command()


@pytest.fixture
def fresh(command, tmp_path):
    """A started worker that has loaded nothing."""
    with started(command, tmp_path) as worker:
        yield worker


@pytest.fixture(scope="module")
def shared(command, model, tmp_path_factory):
    """A worker that has loaded the model, for the tests that leave it as it is."""
    with started(command, tmp_path_factory.mktemp("shared")) as worker:
        assert worker.connect().ask(FrameType.LOAD, load(model)).type is FrameType.LOADED
        yield worker


@pytest.fixture
def peer(shared):
    """A connection as a gateway process has one."""
    peer = shared.connect()
    yield peer
    peer.close()


def load(model, **options):
    """Return the payload of LOAD, with more options."""
    source = model.source
    return load_parts(source.directory, str(source.artifact), {**source.options, **options})


def outputs(*names):
    """Return the tensor that names the wanted outputs."""
    return Part(":outputs", "BYTES", (len(names),), join_elements([name.encode() for name in names]))


def test_hello_names_the_worker(fresh):
    """HELLO is answered by HELLO with the worker's name."""
    peer = fresh.connect(greet=False)
    answer = peer.ask(FrameType.HELLO, [Part("peer", "BYTES", (1,), join_elements([b"me"]))])
    assert answer.type is FrameType.HELLO
    assert answer.parts["worker"].shape == (1,)


def test_hello_comes_first(fresh):
    """Any other first frame is a bad one, and the connection is closed."""
    peer = fresh.connect(greet=False)
    assert peer.ask(FrameType.DESCRIBE).code == "bad_frame"
    assert peer.receive() is None


def test_another_version_is_refused(fresh):
    """A frame of another protocol version is unsupported, and the connection is closed."""
    peer = fresh.connect(greet=False)
    peer.raw(struct.pack("<IBBHQII", 0, 1, 2, 0, 5, 0, 0))
    answer = peer.receive()
    assert (answer.id, answer.code) == (5, "unsupported")
    assert peer.receive() is None


def test_before_load_nothing_is_ready(fresh, model):
    """Before LOAD, DESCRIBE and PREDICT are not_ready, and PING is answered."""
    peer = fresh.connect()
    assert peer.ask(FrameType.DESCRIBE).code == "not_ready"
    peer.predict([1.0])
    assert peer.receive().code == "not_ready"
    assert peer.ask(FrameType.PING).type is FrameType.PONG


def test_load_tells_the_signature(fresh, model):
    """LOADED names inputs and outputs with datatype and shape, and a second LOAD is unsupported."""
    peer = fresh.connect()
    answer = peer.ask(FrameType.LOAD, load(model))
    assert answer.type is FrameType.LOADED, answer.message
    assert [row[:3] for row in answer.rows("inputs", 4)] == [["x", "FP64", "-1"], ["hold_ms", "INT64", "-1"]]
    assert answer.rows("outputs", 3) == [["y", "FP64", "-1"], ["z", "FP64", "-1"]]
    assert peer.ask(FrameType.LOAD, load(model)).code == "unsupported"


def test_describe_repeats_it(peer):
    """DESCRIBE is answered by LOADED on any connection."""
    assert peer.ask(FrameType.DESCRIBE).rows("outputs", 3) == [["y", "FP64", "-1"], ["z", "FP64", "-1"]]


def test_load_that_fails_says_why_and_exits(fresh, model):
    """A model that does not load is load_failed in one line with the reason, and the worker exits with status 1."""
    peer = fresh.connect()
    answer = peer.ask(FrameType.LOAD, load(model, broken="no\nweights"))
    assert answer.code == "load_failed"
    assert "broken: no" in answer.message
    assert "\n" not in answer.message
    assert fresh.status() == 1


def test_predict(peer):
    """A PREDICT is answered by a RESULT with all outputs."""
    peer.predict([1.5, -0.0, 1e300])
    answer = peer.receive()
    assert answer.type is FrameType.RESULT
    assert answer.floats("y") == [3.0, 0.0, 2e300]
    assert np.signbit(answer.floats("y")[1])
    assert answer.floats("z") == [2.5, 1.0, 1e300]


def test_wanted_outputs(peer):
    """With `:outputs` at least the wanted outputs are answered; other names with a colon are ignored."""
    context = Part(":unheard-of", "FP32", (0,), b"")
    peer.predict([1.0], outputs=outputs("z"), context=context)
    assert peer.receive().floats("z") == [2.0]


def test_many_in_flight(peer):
    """Hundreds of requests sent at once are each answered once, under their own id."""
    sent = {peer.predict([float(number)]): number for number in range(100, 600)}
    answers = peer.answers(len(sent))
    assert {request: answer.floats("y")[0] for request, answer in answers.items()} == {
        request: 2.0 * number for request, number in sent.items()
    }


def test_many_connections(shared):
    """Connections do not get each other's answers, also with equal ids."""
    peers = [shared.connect() for _ in range(8)]
    for number, each in enumerate(peers):
        each.predict([float(number)])
    assert [each.receive().floats("y") for each in peers] == [[2.0 * number] for number in range(8)]


def test_frames_in_pieces(peer):
    """A frame that arrives byte by byte, and two frames in one write, are read."""
    parts = [Part("x", "FP64", (1,), struct.pack("<d", 3)), Part("hold_ms", "INT64", (1,), bytes(8))]
    frame = b"".join(pack(FrameType.PREDICT, 77, parts, 60_000))
    for byte in frame:
        peer.raw(bytes([byte]))
    assert peer.receive().floats("y") == [6.0]
    peer.raw(frame + b"".join(pack(FrameType.PREDICT, 78, parts, 60_000)))
    assert set(peer.answers(2)) == {77, 78}


def test_big_tensors(peer):
    """A tensor of 16 MiB comes back whole."""
    x = np.arange(100, 100 + (1 << 21), dtype="<f8")
    peer.send(
        FrameType.PREDICT,
        [Part("x", "FP64", x.shape, x.tobytes()), Part("hold_ms", "INT64", x.shape, bytes(x.nbytes))],
    )
    assert np.array_equal(np.frombuffer(peer.receive().parts["y"].data, "<f8"), 2 * x)


def test_the_callers_fault(peer):
    """What the model blames on the caller is invalid_input, with its words; the connection lives on."""
    peer.predict([1.0, -2.0])
    answer = peer.receive()
    assert (answer.code, answer.message) == ("invalid_input", "tensor 'x': row 1: must not be negative")
    peer.predict([1.0])
    assert peer.receive().floats("y") == [2.0]


def test_the_models_fault(peer):
    """What the model raises is model_fault, and later requests are served."""
    peer.predict([13.0])
    assert peer.receive().code == "model_fault"
    peer.predict([1.0])
    assert peer.receive().floats("y") == [2.0]


def test_cancel_before_it_starts(peer):
    """A cancelled request that waits is answered `cancelled` and never started; the others are served."""
    before = peer.ask(FrameType.PING).counters
    first = peer.predict([1.0], hold_ms=HOLD_MS)
    second, third = peer.predict([2.0]), peer.predict([3.0])
    peer.send(FrameType.CANCEL, about=second)
    answers = peer.answers(3)
    assert answers[second].code == "cancelled"
    assert [answers[request].floats("y") for request in (first, third)] == [[2.0], [6.0]]
    after = peer.ask(FrameType.PING).counters
    assert after["started"] - before["started"] == 2
    assert after["cancelled"] - before["cancelled"] == 1


def test_cancel_too_late_has_no_effect(peer):
    """CANCEL of an ended or unknown request is not answered."""
    request = peer.predict([1.0])
    assert peer.receive().floats("y") == [2.0]
    peer.send(FrameType.CANCEL, about=request)
    peer.send(FrameType.CANCEL, about=987654)
    assert peer.ask(FrameType.PING).type is FrameType.PONG


def test_expired_work_is_not_run(peer):
    """A request whose time is over before it starts is answered `deadline` and never started."""
    before = peer.ask(FrameType.PING).counters
    first = peer.predict([1.0], hold_ms=HOLD_MS)
    late, never = peer.predict([2.0], deadline_ms=HOLD_MS // 8), peer.predict([3.0], deadline_ms=0)
    patient = peer.predict([4.0], deadline_ms=NO_DEADLINE)
    answers = peer.answers(4)
    assert [answers[request].code for request in (late, never)] == ["deadline", "deadline"]
    assert [answers[request].floats("y") for request in (first, patient)] == [[2.0], [8.0]]
    after = peer.ask(FrameType.PING).counters
    assert after["started"] - before["started"] == 2
    assert after["expired"] - before["expired"] == 2


def test_a_lost_connection_takes_its_waiting_work_along(shared, peer):
    """What a client that left had waiting is not started."""
    leaving = shared.connect()
    before = peer.ask(FrameType.PING).counters
    leaving.predict([1.0], hold_ms=HOLD_MS)
    for _ in range(20):
        leaving.predict([2.0], hold_ms=HOLD_MS)
    assert leaving.receive().floats("y") == [2.0]
    leaving.close()

    def is_let_go():
        counters = peer.ask(FrameType.PING).counters
        assert counters["started"] - before["started"] <= 3
        return counters["cancelled"] - before["cancelled"] >= 18

    eventually(is_let_go)


def test_ping_waits_for_the_call_under_way_at_most(peer):
    """A long queue that moves is no stuck model: else a worker under load would be killed for it."""
    asked = [peer.predict([1.0], hold_ms=HOLD_MS) for _ in range(3)]
    ping = peer.send(FrameType.PING)
    answers = [peer.receive() for _ in range(4)]
    assert [answer.id for answer in answers if answer.id != ping] == asked
    pong = next(answer for answer in answers if answer.id == ping)
    assert answers.index(pong) <= 1
    assert {"started", "cancelled", "expired", "queued"} <= pong.counters.keys()


@pytest.mark.parametrize("kind", [3, 6, 7, 9, 12, 255])
def test_unknown_types_are_unsupported(peer, kind):
    """A type that is unknown, or only a worker's own, is unsupported; the connection lives on."""
    peer.raw(struct.pack("<IBBHQII", 4, kind, 1, 0, 9, 0, 0) + struct.pack("<I", 0))
    answer = peer.receive()
    assert (answer.id, answer.code) == (9, "unsupported")
    assert peer.ask(FrameType.PING).type is FrameType.PONG


def test_reserved_bytes_are_ignored(peer):
    """Whatever the reserved bytes hold, the frame is read."""
    peer.raw(struct.pack("<IBBHQII", 0, 4, 1, 0xFFFF, 9, 1000, 0xFFFFFFFF))
    assert peer.receive().type is FrameType.LOADED


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(struct.pack("<IBBHQII", (1 << 30) + 1, 5, 1, 0, 9, 1000, 0), id="too long"),
        pytest.param(struct.pack("<IBBHQII", 2, 5, 1, 0, 9, 1000, 0) + b"xx", id="cut off"),
        pytest.param(struct.pack("<IBBHQIII", 4, 5, 1, 0, 9, 1000, 0, 7), id="missing tensors"),
        pytest.param(struct.pack("<IBBHQIII", 5, 5, 1, 0, 9, 1000, 0, 0) + b"x", id="left over"),
        pytest.param(
            struct.pack("<IBBHQII", 23, 5, 1, 0, 9, 1000, 0) + struct.pack("<IHsBBqQ", 1, 1, b"x", 13, 1, 1, 4)[:23],
            id="size and shape differ",
        ),
    ],
)
def test_garbage_is_a_bad_frame(shared, peer, garbage):
    """A frame that cannot be read is bad_frame, its connection is closed, and others live on."""
    peer.raw(garbage)
    answer = peer.receive()
    assert (answer.id, answer.code) == (9, "bad_frame")
    assert peer.receive() is None
    other = shared.connect()
    other.predict([1.0])
    assert other.receive().floats("y") == [2.0]


def test_noise_on_standard_output_disturbs_nothing(fresh, model):
    """What the model prints goes to the log, not into the protocol."""
    peer = fresh.connect()
    assert peer.ask(FrameType.LOAD, load(model, noise="hello from the model")).type is FrameType.LOADED
    peer.predict([1.0])
    assert peer.receive().floats("y") == [2.0]
    eventually(lambda: "hello from the model" in fresh.log.read_text())


def test_samples_are_tried_at_load(fresh, model):
    """Example rows on which the model fails make the load fail."""
    bad = {
        "x": Part("sample.x", "FP64", (1,), struct.pack("<d", 13)),
        "hold_ms": Part("sample.hold_ms", "INT64", (1,), bytes(8)),
    }
    source = model.source
    answer = fresh.connect().ask(
        FrameType.LOAD, load_parts(source.directory, str(source.artifact), source.options, **bad)
    )
    assert answer.code == "load_failed"
    assert "thirteen" in answer.message


def test_drain_finishes_what_it_has(fresh, model):
    """After DRAIN the worker answers what it had, closes and exits with status 0."""
    parent, peer = fresh.connect(), fresh.connect()
    assert parent.ask(FrameType.LOAD, load(model)).type is FrameType.LOADED
    first, second = peer.predict([1.0], hold_ms=HOLD_MS), peer.predict([2.0])
    peer.send(FrameType.DRAIN)
    late = peer.predict([3.0])
    answers = peer.answers(3)
    assert [answers[request].floats("y") for request in (first, second)] == [[2.0], [4.0]]
    assert answers[late].code == "not_ready"
    assert fresh.status() == 0
    assert peer.receive() is None
    assert parent.receive() is None


def test_it_exits_when_the_parent_is_gone(fresh):
    """At the end of its standard input the worker exits."""
    fresh.connect()
    fresh.process.stdin.close()
    fresh.status()


def test_it_exits_when_the_parent_is_gone_while_the_model_works(fresh, model):
    """The end of standard input is seen also while a prediction hangs."""
    peer = fresh.connect()
    assert peer.ask(FrameType.LOAD, load(model)).type is FrameType.LOADED
    peer.predict([1.0], hold_ms=600_000)
    fresh.process.stdin.close()
    fresh.status()


def test_a_socket_left_behind_is_replaced(command, model, tmp_path):
    """A worker starts where another one left its socket."""
    for _ in range(2):
        with started(command, tmp_path) as worker:
            assert worker.connect().ask(FrameType.LOAD, load(model)).type is FrameType.LOADED
