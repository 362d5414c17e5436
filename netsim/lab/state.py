"""What is remembered of every lab, and how one is taken down.

``$XDG_STATE_HOME/netsim/labs/ID/`` holds ``journal.jsonl`` (each step twice: the intent, then that it is done) and
``holder`` (the process that keeps the lab's namespaces: pid, start time, and whose kernel they are in). Everything that a
lab makes in the kernel lives in the holder's namespaces, so that its end is the end of all of it; a pid with another start
time is somebody else's process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsim.errors import NetsimError, UsageError

HOST, UML = "host", "uml"  # the kernels: this machine's, or user-mode Linux
STOP_AT = "NETSIM_LAB_STOP_AT"  # fault injection: die by SIGKILL at STEP (before the act) or STEP:done (after it)
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_REMOVED = ".removed-"
MARK = "netsim-lab"  # the last word but one of every holder's command line
_UML_WORD = "linux.uml"


def home() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base).absolute() / "netsim" / "labs"


def check_id(lab: str) -> str:
    if not _ID.fullmatch(lab):
        raise UsageError(f"--id {lab}: an id is up to 32 lower-case letters, digits and dashes")
    return lab


@dataclass(frozen=True)
class Holder:
    """The process whose end removes the lab: ``unshare``, whose only child is process 1 of the lab."""

    pid: int
    start: int
    kernel: str = HOST
    folder: Path = Path()  # the lab's

    @property
    def alive(self) -> bool:
        return _start(self.pid) == self.start

    @property
    def inside(self) -> int | None:
        """Process 1 of the lab, by its pid here."""
        with suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            if self.alive and children:
                return int(children[0])
        return None


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; None if it is gone or only waits to be reaped."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])


@dataclass(frozen=True)
class Lab:
    id: str
    folder: Path

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def write(self, step: str, what: str, **more: Any) -> None:
        """``what`` is "intent" or "done". Fault injection ends the writer here."""
        line = json.dumps({"step": step, "what": what, "at": round(time.time(), 3), **more})
        with self.journal.open("a") as out:
            out.write(line + "\n")
            out.flush()
            os.fsync(out.fileno())
        if os.environ.get(STOP_AT) == (step if what == "intent" else f"{step}:{what}"):
            os.kill(os.getpid(), signal.SIGKILL)

    def entries(self) -> list[dict[str, Any]]:
        found = []
        with suppress(FileNotFoundError):
            for line in self.journal.read_text().splitlines():
                with suppress(ValueError):  # a killed writer leaves half a line
                    found.append(json.loads(line))
        return found

    @property
    def places(self) -> list[str]:
        """The names of its namespaces."""
        return next((entry["places"] for entry in self.entries() if "places" in entry), [])

    @property
    def ready(self) -> bool:
        return any((entry["step"], entry["what"]) == ("ready", "done") for entry in self.entries())

    def holder(self) -> Holder | None:
        try:
            pid, start, kernel = (self.folder / "holder").read_text().split()
            return Holder(int(pid), int(start), kernel, self.folder)
        except (OSError, ValueError):
            return next((held for held in _holders() if held.folder == self.folder), None)


def create(lab: str) -> Lab:
    made = Lab(check_id(lab), home() / lab)
    if home().resolve().is_relative_to("/run"):
        raise UsageError(f"labs cannot be kept in {home()}: a lab has a /run of its own; set XDG_STATE_HOME elsewhere")
    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        made.folder.mkdir(mode=0o700)
    except FileExistsError:
        raise UsageError(
            f"there is a lab {lab} already: `netsim lab down {lab}` removes it, --id names another"
        ) from None
    return made


def find(lab: str) -> Lab:
    made = Lab(check_id(lab), home() / lab)
    if not made.folder.is_dir():
        known = ", ".join(one.id for one in labs()) or "none"
        raise UsageError(f"there is no lab {lab}; there is: {known}")
    return made


def labs() -> list[Lab]:
    if not home().is_dir():
        return []
    return [Lab(path.name, path) for path in sorted(home().iterdir()) if _ID.fullmatch(path.name)]


def leftovers() -> list[Lab]:
    """Labs whose removal was itself interrupted."""
    if not home().is_dir():
        return []
    return [Lab(path.name, path) for path in sorted(home().iterdir()) if path.name.startswith(_REMOVED)]


def strays() -> list[Holder]:
    """Holders of labs of this user whose folder somebody has deleted."""
    return [held for held in _holders() if held.folder.parent == home() and not held.folder.exists()]


def _holders() -> Iterator[Holder]:
    """Every holder that runs, found by its command line: it ends with ``MARK`` and the lab's folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                start = _start(int(entry.name))
                if words[:1] == ["unshare"] and words[-2:-1] == [MARK] and start is not None:
                    kernel = UML if _UML_WORD in words[-3] else HOST
                    yield Holder(int(entry.name), start, kernel, Path(words[-1]))


def down(lab: Lab) -> None:
    """Remove a lab, whole or half built; nothing to do is fine.

    The folder is renamed first: a holder that has not yet written its pid finds no folder to write to, and ends itself."""
    aside, held = lab.folder, lab.holder()
    if not lab.id.startswith(_REMOVED):
        aside = lab.folder.with_name(f"{_REMOVED}{lab.id}-{time.time_ns()}")
        try:
            lab.folder.rename(aside)
        except FileNotFoundError:
            return
    held = Lab(aside.name, aside).holder() or held
    if held is not None:
        end(held)
    shutil.rmtree(aside)


def end(held: Holder) -> None:
    inside = held.inside
    began = None if inside is None else _start(inside)
    for pid, start in ((inside, began), (held.pid, held.start)):
        if pid is not None and start is not None and _start(pid) == start:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while held.alive or (inside is not None and began is not None and _start(inside) == began):
        with suppress(ChildProcessError):
            os.waitpid(held.pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise NetsimError(f"the lab's holder, process {held.pid}, does not end")
        time.sleep(0.01)
    with suppress(ChildProcessError):
        os.waitpid(held.pid, os.WNOHANG)
