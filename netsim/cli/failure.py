"""What a user sees when something goes wrong: one message, one exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from netsim.errors import InputError, NetsimError

_MEMORY, _INTERNAL = 3, 70
_ISSUES = "the issue tracker named by `pip show kube-netsim`"
_FOREIGN = (
    "another distribution has installed a package called netsim over this one (networklab, the netlab tool, has one): "
    "install kube-netsim in a virtual environment of its own, for example with `pipx install kube-netsim`"
)


def program() -> str:
    """How the user called this: ``netsim``, or ``kubectl netsim`` for the plug-in."""
    return "kubectl netsim" if Path(sys.argv[0] or "netsim").name.startswith("kubectl") else "netsim"


def tell(message: str, code: int) -> int:
    """One error on stderr; each further line of it is a problem of its own."""
    from netsim.report.style import clean

    for line in message.splitlines() or [""]:
        print(f"error: {clean(line)}", file=sys.stderr)  # noqa: T201
    return code


def shadowed() -> str | None:
    """The complaint if ``netsim`` is not ours: its __init__ lies elsewhere or says something else."""
    import netsim

    ours = Path(__file__).resolve().parent.parent / "__init__.py"
    theirs = getattr(netsim, "__file__", None)
    same = theirs is not None and Path(theirs).resolve() == ours
    return None if same and (netsim.__doc__ or "").startswith("netsim: an exact") else _FOREIGN


def explain(error: Exception, arguments: Sequence[str]) -> int:
    """Tell ``error`` and return its exit code."""
    if isinstance(error, InputError):
        return tell("\n".join(str(problem) for problem in error.problems), error.exit_code)
    if isinstance(error, NetsimError):
        return tell(str(error), error.exit_code)
    if isinstance(error, MemoryError):
        return tell("not enough memory for this input: fewer files, or one namespace (-n) of them, may fit", _MEMORY)
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "netsim" and _networklab():
        return tell(_FOREIGN, _INTERNAL)
    where = _report(error, arguments)
    kept = f"; what happened is in {where}: please attach it to a report at {_ISSUES}" if where else ""
    return tell(f"internal error: {type(error).__name__}: {_first_line(error)}{kept}", _INTERNAL)


def quiet_stdout() -> None:
    """Let the interpreter's last flush find nowhere to fail."""
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # stdout is no file (a test's buffer), so there is nothing to flush either


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _networklab() -> bool:
    from importlib import metadata

    try:
        metadata.version("networklab")
    except metadata.PackageNotFoundError:
        return False
    return True


def _report(error: Exception, arguments: Sequence[str]) -> Path | None:
    """Write the traceback to the state directory, or to the temporary one; None if neither takes it."""
    import platform
    import tempfile
    import traceback

    from netsim import __version__

    text = "\n".join(
        [
            f"netsim {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"arguments: {list(arguments)!r}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "netsim"
    for folder in (state, Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="netsim-crash-", suffix=".txt", dir=folder)
            with os.fdopen(handle, "w", errors="replace") as file:
                file.write(text)
            return Path(name)
        except OSError:
            continue
    return None
