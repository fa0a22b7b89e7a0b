"""Brings FOLDER into the records: reads it off the loop, numbers what it finds, remembers what stands there."""

import asyncio
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from turnout.control.publish.blobs import BlobFolder
from turnout.control.publish.catalogue import admit, by_model
from turnout.control.publish.folder import FoundModel, Patience, changed_digests, read_folder
from turnout.control.publish.state import Imported
from turnout.control.registry.interface import Registry
from turnout.core.clock import wall_s
from turnout.core.ids import VersionRef

# A change of routes waits so many times the time of rest for bytes that are being changed under a named number.
_COMPARED_WITHIN: Final = 2.0


class Importer:
    """FOLDER as last read. One reading at a time, so that numbers are given out in order."""

    def __init__(self, folder: Path, blobs: BlobFolder, registry: Registry, settle_s: float, quiet_s: float) -> None:
        self._folder = folder
        self._blobs = blobs
        self._registry = registry
        self._settle_s = settle_s
        self._quiet_s = quiet_s
        self._leaving = threading.Event()
        self._lock = asyncio.Lock()
        self._models: dict[str, str] = {}
        self._present: dict[str, tuple[int, ...]] = {}
        self._problems: dict[str, dict[str, str]] = {}
        self._read_s: dict[str, float] = {}
        self._changed: frozenset[str] = frozenset()

    async def read_all(self) -> Imported:
        """Read all of FOLDER. Raises OSError when it is not there."""
        return await self._read(None, frozenset())

    async def read_models(self, models: Collection[str], *, load: bool = False) -> Imported:
        """Read the folders of some models again; with `load` they serve again. Raises OSError."""
        folders = {folder for folder, model in self._models.items() if model in models}
        return await self._read(frozenset(folders.union(models)), frozenset(models) if load else frozenset())

    async def compare(self, versions: Collection[str]) -> frozenset[str]:
        """Return the versions whose bytes in FOLDER are known to be others than the imported ones.

        Of `versions` those are read again whose numbered folders changed; nothing is taken in. Raises OSError.
        """
        async with self._lock:
            folders = {model: folder for folder, model in self._models.items()}
            named = {
                (folder, ref.number): str(ref)
                for ref in map(VersionRef.parse, versions)
                if (folder := folders.get(ref.model)) is not None and folder in self._read_s
            }
            since_s = {key: self._read_s[key[0]] for key in named}
            patience = Patience(_COMPARED_WITHIN * self._quiet_s, self._leaving, self._quiet_s)
            digests = await asyncio.to_thread(changed_digests, self._folder, self._blobs, patience, since_s)
            known = self._registry.versions()
            for key, digest in digests.items():
                ref = named[key]
                if ref in known:
                    same = known[ref].digest == digest
                    self._changed = self._changed - {ref} if same else self._changed | {ref}
            return self._changed

    def problems_of(self, model: str) -> Mapping[str, str]:
        """Return what was wrong with a model's folder when it was last read."""
        folders = {folder for folder, name in self._models.items() if name == model} | {model}
        return {key: reason for folder in folders for key, reason in self._problems.get(folder, {}).items()}

    def leave(self) -> None:
        """Stop waiting for files that are being written."""
        self._leaving.set()

    async def _read(self, only: frozenset[str] | None, loaded: frozenset[str]) -> Imported:
        async with self._lock:
            patience = Patience(self._settle_s, self._leaving, self._quiet_s)
            begun_s = wall_s()
            found, problems = await asyncio.to_thread(read_folder, self._folder, self._blobs, patience, only)
            read = {model.folder for model in found} | problems.keys()
            self._problems = {
                folder: reasons for folder, reasons in self._problems.items() if only is not None and folder not in read
            }
            for folder, reason in problems.items():
                self._problems[folder] = {folder: reason}
            chosen, twice = by_model([*found, *self._others(read)] if only is not None else found)
            for folder, reason in twice.items():
                self._problems[folder] = {folder: reason}
            for model in chosen.values():
                if model.folder in read:
                    self._read_s[model.folder] = begun_s
                    self._admit(model)
            flat = {key: reason for reasons in self._problems.values() for key, reason in reasons.items()}
            return Imported(dict(self._registry.versions()), dict(self._present), flat, loaded, self._changed)

    def _admit(self, model: FoundModel) -> None:
        admission = admit(model, self._registry.versions())
        for version in admission.records:
            self._registry.record(version.entry, version.lineage)
        before = self._models.get(model.folder, model.model)
        if before != model.model:
            self._present.pop(before, None)  # the folder was given to another model
        self._models[model.folder] = model.model
        if admission.present:
            self._present[model.model] = admission.present
        self._problems[model.folder] = admission.problems
        others = {ref for ref in self._changed if VersionRef.parse(ref).model != model.model}
        self._changed = admission.changed.union(others)

    def _others(self, read: Collection[str]) -> list[FoundModel]:
        """Return the folders that were read earlier, for the question whose a model's name is."""
        return [FoundModel(folder, model, (), (), {}) for folder, model in self._models.items() if folder not in read]
