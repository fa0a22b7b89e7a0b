"""Numbers for what was found in FOLDER."""

import msgspec

from turnout.control.publish.catalogue import admit, by_model
from turnout.control.publish.folder import FLAT, FoundModel, FoundVersion
from turnout.core.manifest import Runtime
from turnout.core.snapshot import VersionEntry


def entry(number: int, digest: str, **changes) -> VersionEntry:
    """Return a version of model `m`."""
    plain = VersionEntry("m", number, f"sha256:{digest}", Runtime.ONNX, "m.onnx", ())
    return msgspec.structs.replace(plain, **changes)


def known(*entries: VersionEntry) -> dict[str, VersionEntry]:
    """Return recorded versions."""
    return {str(version.ref): version for version in entries}


def found(*entries: VersionEntry, folder: str = "m", model: str = "m", problems=None, numbers=None) -> FoundModel:
    """Return a model folder with these versions."""
    versions = tuple(FoundVersion(version, {}) for version in entries)
    return FoundModel(folder, model, numbers or tuple(v.number for v in entries), versions, problems or {})


def recorded(admission) -> list[tuple[int, str]]:
    """Return numbers and digests that are to be recorded."""
    return [(version.entry.number, version.entry.digest) for version in admission.records]


def test_a_flat_folder_is_version_1():
    """The first bytes of a model get the first number."""
    admission = admit(found(entry(FLAT, "a")), {})
    assert recorded(admission) == [(1, "sha256:a")]
    assert admission.present == (1,)


def test_changed_bytes_of_a_flat_folder_become_the_next_number():
    """Also when they change back: a number never means two things, and the newest is what lies there."""
    admission = admit(found(entry(FLAT, "a")), known(entry(1, "a"), entry(2, "b")))
    assert recorded(admission) == [(3, "sha256:a")]
    assert admission.present == (3,)


def test_an_unchanged_flat_folder_keeps_its_number():
    """Reading again records nothing."""
    admission = admit(found(entry(FLAT, "b")), known(entry(1, "a"), entry(2, "b")))
    assert (admission.records, admission.present) == ((), (2,))


def test_a_changed_declaration_with_equal_bytes_keeps_the_number():
    """What the digest does not cover is recorded anew under the same number."""
    admission = admit(found(entry(FLAT, "a", batching=False)), known(entry(1, "a")))
    assert recorded(admission) == [(1, "sha256:a")]


def test_a_broken_flat_folder_leaves_the_newest_in_place():
    """A failed update takes nothing away."""
    broken = found(numbers=(FLAT,), problems={FLAT: "no artifact"})
    admission = admit(broken, known(entry(1, "a"), entry(2, "b")))
    assert (admission.present, admission.problems) == ((2,), {"m": "no artifact"})
    assert admit(broken, {}).present == ()


def test_numbered_folders_keep_their_numbers():
    """New numbers are recorded, old ones stay present, gone ones are not."""
    admission = admit(found(entry(2, "b"), entry(7, "c")), known(entry(1, "a"), entry(2, "b")))
    assert recorded(admission) == [(7, "sha256:c")]
    assert admission.present == (2, 7)


def test_changed_bytes_under_an_existing_number_are_refused_by_name():
    """The imported bytes are kept and the folder is named."""
    admission = admit(found(entry(1, "a"), entry(2, "x")), known(entry(1, "a"), entry(2, "b")))
    assert admission.records == ()
    assert admission.present == (1, 2)
    assert admission.problems["m/2"].startswith("its bytes changed after m@2 was imported")


def test_a_broken_numbered_version_is_named_by_its_version():
    """Unknown so far, it has no other name; known before, the folder is at fault and the version goes on."""
    broken = found(entry(1, "a"), numbers=(1, 2), problems={2: "no artifact"})
    assert admit(broken, {}).problems == {"m@2": "no artifact"}
    assert admit(broken, {}).present == (1,)
    assert admit(broken, known(entry(2, "b"))).problems == {"m/2": "no artifact"}
    assert admit(broken, known(entry(2, "b"))).present == (1, 2)


def test_two_folders_of_one_model():
    """The folder called like the model speaks for it, whatever comes first in the alphabet."""
    folders = [found(folder="a", model="m"), found(folder="m", model="m"), found(folder="z", model="z")]
    chosen, problems = by_model(folders)
    assert {model: folder.folder for model, folder in chosen.items()} == {"m": "m", "z": "z"}
    assert problems == {"a": "model 'm' is already that of folder 'm'"}
