"""Inside user-mode Linux: process 1, which runs what the host asks for.

The host and the guest share one directory, the lab's folder. A job is a directory ``jobs/N`` of it, renamed into place once
it is complete:

    job.json      {"words": [command …], "env": {…}, "terminal": [rows, columns] or null}
    work          instead of words: a pickled callable of netsim's own, which gives the exit code
    error         what its exception said, if it was one of netsim's
    in.0, in.1 …  standard input, piece by piece; ``in.end`` when that was all
    out, err      what the job says, as it says it (``out`` alone with a terminal)
    kill          written by the host: the job is no longer wanted
    code          written last: the exit code, negative for a signal

Polling, not sockets: hostfs carries files and nothing else between two kernels.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import pty
import signal
import struct
import sys
import termios
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from netsim.errors import NetsimError

_BUSY, _IDLE = 0.005, 0.05  # seconds between two looks
_PIECE = 65536


class Job:
    """One command, running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        told = json.loads((folder / "job.json").read_text())
        self._terminal: int | None = None
        self._input: int | None = None
        self._piece = 0
        self._pending = b""
        if told["terminal"] is not None:
            self.pid, self._terminal = pty.fork()
            if self.pid == 0:
                _become(told["words"], told["env"])
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *told["terminal"], 0, 0))
            self._input = self._terminal
        else:
            reading, self._input = os.pipe()
            self.pid = os.fork()
            if self.pid == 0:
                os.setsid()
                for number, descriptor in enumerate((reading, _opened(folder / "out"), _opened(folder / "err"))):
                    os.dup2(descriptor, number)
                if told["words"]:
                    _become(told["words"], told["env"])
                _work(folder, told["env"])
            os.close(reading)
        os.set_blocking(self._input, False)

    def look(self) -> None:
        """Move what came from either side since the last look."""
        self._feed()
        if self._terminal is not None:
            self._drain(self._terminal)
        if (self.folder / "kill").exists():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _feed(self) -> None:
        if self._input is None:
            return
        piece = self.folder / f"in.{self._piece}"
        if not self._pending and piece.exists():
            self._pending = piece.read_bytes()
            self._piece += 1
        try:
            if self._pending:
                self._pending = self._pending[os.write(self._input, self._pending) :]
            elif (self.folder / "in.end").exists() and not piece.exists() and self._terminal is None:
                os.close(self._input)
                self._input = None
        except BlockingIOError:
            pass
        except OSError:  # the command reads no more
            self._pending = b""

    def _drain(self, terminal: int) -> None:
        with suppress(OSError), (self.folder / "out").open("ab") as out:  # EIO: the last process has closed it
            while data := os.read(terminal, _PIECE):
                out.write(data)
                out.flush()

    def end(self, status: int) -> None:
        if self._terminal is not None:
            self._drain(self._terminal)
        if self._input is not None:
            os.close(self._input)
        written = self.folder / "code.new"
        written.write_text(str(os.waitstatus_to_exitcode(status)))
        written.rename(self.folder / "code")


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _become(words: list[str], env: dict[str, str]) -> NoReturn:
    """In the child: the command."""
    try:
        os.closerange(3, 256)
        os.execvpe(words[0], words, env)
    except BaseException as error:
        os.write(2, f"{words[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _work(folder: Path, env: dict[str, str]) -> NoReturn:
    """In the child, which is a Python with netsim in it already: the work."""
    code = 70
    try:
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(env)
        work = pickle.loads((folder / "work").read_bytes())
        code = work()
    except NetsimError as error:
        (folder / "error").write_text(str(error))
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(folder: Path) -> None:
    """Run every job of ``folder``. Does not return: the end of process 1 is the end of the guest."""
    jobs = folder / "jobs"
    jobs.mkdir(exist_ok=True)
    running: dict[int, Job] = {}
    known: set[str] = set()
    (folder / "held").touch()
    while True:
        for name in _new(jobs, known):
            known.add(name)
            job = Job(jobs / name)
            running[job.pid] = job
        for job in running.values():
            job.look()
        for pid, status in _ended():
            if pid in running:
                running.pop(pid).end(status)
        time.sleep(_BUSY if running else _IDLE)


def _new(jobs: Path, known: set[str]) -> list[str]:
    return sorted(name for name in os.listdir(jobs) if name.isdecimal() and name not in known)


def _ended() -> Iterator[tuple[int, int]]:
    """Children that have ended, orphans among them: process 1 inherits those."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, status


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
