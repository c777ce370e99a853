"""Errors that a user can mend: one sentence that names the input, what is wrong with it and what to do."""


class SageError(Exception):
    """Base of every error that a front door shows as one line instead of a traceback."""


class InputError(SageError):
    """Something that the user gave (a path, an image, a name, a value) cannot be used; front doors exit with status 2."""


class BackendError(SageError):
    """A model, a server or a store failed while it was used; the message says what, and what can be done about it."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's text, for use inside a sentence."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:limit].rstrip(".")
