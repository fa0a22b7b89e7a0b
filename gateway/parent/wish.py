"""A wish that an operator leaves for the parent in STATE, and how it was settled. Knows nothing of what is wished.

The file is empty while the wish stands; it is gone once it is fulfilled, and holds the reason where it cannot be.
"""

from pathlib import Path


class Wish:
    """One kind of wish, by its file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> None:
        """Wish. Raises OSError."""
        self._path.write_text("")

    def is_wanted(self) -> bool:
        """Tell whether a wish stands."""
        try:
            return self._path.stat().st_size == 0
        except OSError:
            return False

    def settle(self, refusal: str) -> None:
        """End the wish, if there is one: fulfilled, or refused for a reason."""
        try:
            if not refusal:
                self._path.unlink(missing_ok=True)
            elif self._path.exists():
                self._path.write_text(refusal)
        except OSError:
            return  # the log has told how it went

    def outcome(self) -> str | None:
        """Return the refusal, empty when the wish is fulfilled, None while it stands; a refusal is told once."""
        try:
            text = self._path.read_text()
        except OSError:
            return ""
        if text:
            self._path.unlink(missing_ok=True)
        return text or None
