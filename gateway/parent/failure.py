"""The one way in which a start ends before it began."""


class CannotStart(Exception):
    """Turnout cannot start; the text is the one line that the operator sees. Empty: a child has already said it."""
