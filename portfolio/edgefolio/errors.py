"""Error types: one for everything a user can fix.

Every room raises :class:`UserError` when the input, not the program, is at fault. It names the field, shows the value
and states the remedy; the command line prints it in three lines and exits with 2, a Job writes it into its termination
message. Anything else that escapes is a bug and keeps its traceback. Text of an error may come from untrusted
input: it is shortened and made printable here, for every place that shows it.
"""

from __future__ import annotations

from edgefolio.shown_text import LONGEST_VALUE, shortened, shown
from edgefolio.uris import redacted

#: Exit codes of the ``edgefolio`` command.
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_OBJECTIVE_NOT_MET = 3

_SIGNS_OF_FULL_MEMORY = ("can't allocate memory", "not enough memory", "std::bad_alloc")
_LONGEST_PROBLEM, _LONGEST_PLACE, _LONGEST_REMEDY = 1000, 1000, 500
#: Longest text that is searched for credentials; the time for that grows with the square of its length.
_LONGEST_READ = 4096


class EdgefolioError(Exception):
    """Base of all errors that Edgefolio raises on purpose. They can be pickled: some cross a process boundary."""

    exit_code: int = EXIT_FAILURE

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's default calls the class with the message alone.
        return _remade, (type(self), str(self), dict(self.__dict__))


class UserError(EdgefolioError):
    """Bad input: one field, its value, what is wrong with it, and what to do about it.

    ``field`` is the path in the resource (``spec.source.weightsURI``) or the option (``--weights``); ``value`` is
    shown as given, bounded, on one line and without credentials in a URI; ``problem`` is one sentence; ``remedy`` is
    the next step.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problem: str, *, field: str, value: object = None, remedy: str) -> None:
        self.problem = _safe(problem, _LONGEST_PROBLEM)
        self.field = _safe(field, _LONGEST_PLACE)
        self.value = None if value is None else _safe(shown(value, limit=_LONGEST_READ), LONGEST_VALUE)
        self.remedy = _safe(remedy, _LONGEST_REMEDY)
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """The whole error in one line, as a log or a termination message shows it."""
        given = "" if self.value is None else f" = {self.value!r}"
        return f"{self.field}{given}: {self.problem} {self.remedy}"


class TransientError(UserError):
    """A :class:`UserError` that a retry may solve: a store that does not answer, a directory in use.

    On the command line it is like any other; a Job is tried again.
    """


def out_of_memory(error: BaseException) -> UserError | None:
    """The user's error for a failed allocation; ``None`` for any other error."""
    if isinstance(error, EdgefolioError):
        return None
    # torch's allocator and ONNX Runtime raise their own errors.
    text = str(error)[:_LONGEST_PROBLEM]
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _SIGNS_OF_FULL_MEMORY):
        return None
    return UserError(
        "there is not enough memory for this.",
        field="memory",
        remedy="Use smaller or fewer samples or a smaller model, or give it more (in a cluster: spec.job.resources).",
    )


class DiskFullError(TransientError):
    """There is no room on a local disk. Neither the repository nor a revision is at fault."""


class IntegrityError(EdgefolioError):
    """Bytes that fail verification against their manifest. They must never reach Triton.

    ``location`` is the path or URI of the offending bytes.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problem: str, *, location: str, remedy: str = "Publish the revision again.") -> None:
        self.problem = _safe(problem, _LONGEST_PROBLEM)
        self.location = _safe(location, _LONGEST_PLACE)
        self.remedy = _safe(remedy, _LONGEST_REMEDY)
        super().__init__(f"{self.location}: {self.problem} {self.remedy}")


def _safe(text: str, limit: int) -> str:
    return shortened(redacted(text[:_LONGEST_READ]), limit)


def _remade(kind: type[EdgefolioError], message: str, attributes: dict[str, object]) -> EdgefolioError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(attributes)
    return error
