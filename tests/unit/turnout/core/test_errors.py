"""The error tree and its one status table."""

import inspect

from turnout.core import errors
from turnout.core.errors import ErrorCode, Internal, InvalidInput, ModelFault, TurnoutError
from turnout.core.status import STATUS, Outcome, shown_message, status_of


def test_status_table_is_total():
    """Every error code has a row, and no row is without a code."""
    assert set(STATUS) == set(ErrorCode)


def test_every_error_class_has_a_code_that_another_may_share_only_by_inheritance():
    """Each class of the tree has its own code, or is a refinement of its parent's."""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, TurnoutError)]
    owners: dict[ErrorCode, type[TurnoutError]] = {}
    for cls in classes:
        if "code" in vars(cls) and cls is not TurnoutError and cls is not Internal:
            assert cls.code not in owners
            owners[cls.code] = cls
    assert set(owners) | {ErrorCode.INTERNAL} == set(ErrorCode)


def test_the_tree_drawn_in_the_module_names_every_class():
    """The picture at the top of errors.py is the code's own tree."""
    classes = [name for name, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, TurnoutError)]
    missing = [name for name in classes if name not in (errors.__doc__ or "")]
    assert missing == []


def test_every_metric_outcome_except_ok_belongs_to_some_error():
    """No outcome label is unreachable."""
    assert {status.outcome for status in STATUS.values()} | {Outcome.OK} == set(Outcome)


def test_contract_statuses():
    """The statuses of DESIGN 6 hold to the letter."""
    wanted = {
        ErrorCode.INVALID_INPUT: (400, 3),
        ErrorCode.NOT_FOUND: (404, 5),
        ErrorCode.UNAUTHENTICATED: (401, 16),
        ErrorCode.FORBIDDEN: (403, 7),
        ErrorCode.CONFLICT: (409, 9),
        ErrorCode.TOO_LARGE: (413, 8),
        ErrorCode.OVERLOADED: (429, 8),
        ErrorCode.MODEL_FAULT: (500, 13),
        ErrorCode.NOT_READY: (503, 14),
        ErrorCode.WORKER_LOST: (503, 14),
        ErrorCode.DEADLINE: (504, 4),
    }
    assert {code: (STATUS[code].http, int(STATUS[code].grpc)) for code in wanted} == wanted


def test_causes_of_model_faults_stay_hidden():
    """A caller sees a fixed text and the request id, never the model's own words."""
    assert shown_message(ModelFault("secret"), "r-1") == "the model failed on this request (request id r-1)"
    assert "secret" not in shown_message(Internal("secret"), "r-1")


def test_caller_errors_are_shown_as_they_are():
    """A caller's mistake is explained to the caller."""
    error = InvalidInput("tensor 'x': too short")
    assert (shown_message(error, "r-1"), status_of(error).http) == ("tensor 'x': too short", 400)


def test_shown_text_is_cut_to_what_a_trailer_carries():
    """A text with a caller's huge name in it stays whole characters and short on both doors."""
    short = InvalidInput("tensor 'é': " + "a" * 500)
    assert shown_message(short, "r") == short.message
    shown = shown_message(InvalidInput("é" * 100_000), "r")
    assert shown == "é" * 1024 + "…"
