"""Error types: one for everything a user can fix.

Every room raises :class:`UserError` when the input, not the program, is at fault. It names the field, shows the value
and states the remedy; the command line prints it in three lines and exits with 2, a Job writes it into its termination
message. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

#: Exit codes of the ``edgefolio`` command.
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_OBJECTIVE_NOT_MET = 3


class EdgefolioError(Exception):
    """Base of all errors that Edgefolio raises on purpose. They can be pickled: some cross a process boundary."""

    exit_code: int = EXIT_FAILURE

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's default calls the class with the message alone.
        return _remade, (type(self), str(self), dict(self.__dict__))


class UserError(EdgefolioError):
    """Bad input: one field, its value, what is wrong with it, and what to do about it.

    ``field`` is the path in the resource (``spec.source.weightsURI``) or the option (``--weights``); ``value`` is
    shown as given; ``problem`` is one sentence; ``remedy`` is the next step.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problem: str, *, field: str, value: object = None, remedy: str) -> None:
        self.problem = problem
        self.field = field
        self.value = None if value is None else _shortened(str(value))
        self.remedy = remedy
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """The whole error in one line, as a log or a termination message shows it."""
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.field}{shown}: {self.problem} {self.remedy}"


class TransientError(UserError):
    """A :class:`UserError` that a retry may solve: a store that does not answer, a directory in use.

    On the command line it is like any other; a Job is tried again.
    """


class IntegrityError(EdgefolioError):
    """Bytes that fail verification against their manifest. They must never reach Triton.

    ``location`` is the path or URI of the offending bytes.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problem: str, *, location: str, remedy: str = "Publish the revision again.") -> None:
        # Strangers' bytes are quoted here, and this is printed to terminals and logs.
        self.problem = printable(problem)
        self.location = printable(location)
        self.remedy = remedy
        super().__init__(f"{self.location}: {self.problem} {remedy}")


def printable(text: str) -> str:
    """``text`` in one line, with control characters escaped and blanks for newlines, for terminals and logs."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable()
        else " "
        if letter in "\n\t"
        else letter.encode("unicode_escape", errors="backslashreplace").decode()
        for letter in text
    )


def _remade(kind: type[EdgefolioError], message: str, attributes: dict[str, object]) -> EdgefolioError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(attributes)
    return error


def _shortened(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
