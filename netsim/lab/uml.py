"""User-mode Linux: a second kernel to run a lab in, for what the host's kernel does not have. Needs no privilege.

Debian's package ``user-mode-linux`` has that kernel as an ordinary program, with its modules; ``kmod`` loads them. The guest
sees the host's files, read-only, as its root (so Python and its packages are the same), and has memory of its own for /run.
The one directory that both may write is the lab's folder, through which the host asks for jobs (``uml_guest``).

The program runs as the child of process 1 of the lab's pid namespace, as everything of a lab does: when the holder ends, the
kernel ends the guest with it. What it keeps in files (its memory, its socket) lies in a /run of its own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netsim.errors import DisagreementError, NetsimError, PrivilegeError
from netsim.lab.handover import dumps

PROGRAM = "linux.uml"
_MODULES = "/usr/lib/uml/modules"
_SHARED = "/run/netsim/lab"  # where the guest finds the lab's folder among the host's files, whatever its name
_MEMORY = "1024M"  # an upper limit: pages that are never touched take none
_LOOK = 0.01  # seconds between two looks for what a job says
# What nothing asks for by itself, though a lab relies on it.
_WANTED = ("br_netfilter", "tun", "nf_conntrack", "nf_conntrack_netlink", "xt_comment")

# Process 1 of the pid namespace. Its /run hides the host's; $1 is the lab's folder. To an ordinary user's guest the host's
# setuid programs (mount is one) belong to nobody: they would lose the privileges of its root, but for --no-new-privs.
INNER = f"""
cd "$1" && mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p {_SHARED} /run/netsim/memory || exit 1
mount --no-canonicalize --bind . {_SHARED} || exit 1
cd /
TMPDIR=/run/netsim/memory {PROGRAM} mem={_MEMORY} root=/dev/root rootfstype=hostfs rootflags=/ ro con=null con0=fd:0,fd:1 \
  quiet panic=-1 umid=lab uml_dir=/run/netsim/uml/ \
  init=/usr/bin/setpriv -- --no-new-privs /bin/sh {_SHARED}/init
exit 1
"""

_INIT = """
export PATH=/run/uml/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t tmpfs -o mode=755 tmpfs /run || exit 1
mkdir -p /dev/pts /dev/shm && mount -t devpts devpts /dev/pts && mount -t tmpfs tmpfs /dev/shm || exit 1
mkdir -p /run/netns /run/lock /run/tmp /run/uml/bin /run/uml/lib/modules
ln -s {modules}/$(uname -r) /run/uml/lib/modules/$(uname -r)
printf '#!/bin/sh\\nexec %s -d /run/uml "$@"\\n' "$(command -v modprobe)" > /run/uml/modprobe
chmod 755 /run/uml/modprobe && echo /run/uml/modprobe > /proc/sys/kernel/modprobe
for tool in iptables ip6tables; do
  for verb in '' -save -restore; do ln -s "$(command -v $tool-legacy$verb)" /run/uml/bin/$tool$verb; done
done
mkdir -p {folder} && mount -t hostfs -o {shared} lab {folder} || exit 1
ip link set lo up
for module in {wanted}; do /run/uml/modprobe -q $module; done
export PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1
exec {python} -m netsim.lab.uml_guest {folder}
"""


def missing() -> list[str]:
    """The Debian packages that user-mode Linux still needs here."""
    found = [] if program() is not None and Path(_MODULES).is_dir() else ["user-mode-linux"]
    return found if _which("modprobe") is not None else [*found, "kmod"]


def version() -> str:
    """The kernel's version, as its modules' directory is called; '' if there is none."""
    with suppress(OSError):
        return max(os.listdir(_MODULES), default="", key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    return ""


def program() -> str | None:
    return _which(PROGRAM)


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def prepare(folder: Path) -> None:
    """Write what the guest's first process reads. PrivilegeError if packages are missing."""
    packages = missing()
    if packages:
        raise PrivilegeError(f"user-mode Linux is not installed: apt-get install {' '.join(packages)}")
    (folder / "jobs").mkdir()
    script = _INIT.format(
        modules=_MODULES,
        shared=_SHARED,
        folder=shlex.quote(str(folder)),
        wanted=" ".join(_WANTED),
        path=shlex.quote(_python_path()),
        python=shlex.quote(sys.executable),
    )
    (folder / "init").write_text(script)


def _python_path() -> str:
    return os.pathsep.join(os.path.abspath(one) for one in sys.path if one)


def call(folder: Path, alive: Callable[[], bool], work: Callable[[], int]) -> int:
    """Run ``work``, which must be picklable, in a process of the guest; its exit code. Errors of netsim's come back."""
    with _job(folder, [], work=dumps(work)) as job:
        code = _follow(job, alive)
        if (job / "error").exists():
            kinds: dict[int, type[NetsimError]] = {4: PrivilegeError, 5: DisagreementError}
            raise kinds.get(code, NetsimError)((job / "error").read_text())
        return code


def run(folder: Path, alive: Callable[[], bool], words: list[str]) -> int:
    """Run a command in the guest, with this process's standard streams; its exit code as a shell would give it."""
    sys.stdout.flush()
    interactive = os.isatty(0) and os.isatty(1)
    size = list(reversed(os.get_terminal_size())) if interactive else None
    with _job(folder, words, terminal=size) as job, _keys(interactive):
        code = _follow(job, alive, given=0)
    return code if code >= 0 else 128 - code


@contextmanager
def _job(
    folder: Path, words: list[str], *, work: bytes | None = None, terminal: list[int] | None = None
) -> Iterator[Path]:
    """A job's directory, in its place; taken away at the end, and the job with it if it still runs."""
    env = {**os.environ, "PATH": f"/run/uml/bin:{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "TMPDIR": "/run/tmp"}
    number = time.time_ns()
    job, half = folder / "jobs" / str(number), folder / "jobs" / f"{number}.new"
    half.mkdir()
    if work is not None:
        (half / "work").write_bytes(work)
    (half / "job.json").write_text(json.dumps({"words": words, "env": env, "terminal": terminal}))
    half.rename(job)
    try:
        yield job
    finally:
        if (job / "code").exists():
            shutil.rmtree(job, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):  # the whole lab is gone
                (job / "kill").touch()


@contextmanager
def _keys(interactive: bool) -> Iterator[None]:
    """Every key goes to the guest's terminal as it is."""
    if not interactive:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _follow(job: Path, alive: Callable[[], bool], given: int | None = None) -> int:
    """Pass on what the job says, and standard input to it, until it ends. NetsimError if the guest ends first."""
    said = dict.fromkeys(("out", "err"), 0)
    source = _Input(job, given)
    while True:
        ended = (job / "code").exists()
        for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
            with suppress(FileNotFoundError), (job / name).open("rb") as file:
                file.seek(said[name])
                data = file.read()
                said[name] += len(data)
                if data:
                    stream.buffer.write(data)
                    stream.flush()
        if ended:
            return int((job / "code").read_text())
        if not alive():
            raise NetsimError("user-mode Linux has ended under the lab; `netsim lab down` clears what is left")
        source.look(_LOOK)


class _Input:
    """Standard input, passed on piece by piece as it comes."""

    def __init__(self, job: Path, descriptor: int | None) -> None:
        self._job, self._descriptor, self._pieces = job, descriptor, 0
        try:
            os.fstat(-1 if descriptor is None else descriptor)
        except OSError:  # there is none, or it was closed
            self._descriptor = None
            (job / "in.end").touch()

    def look(self, wait: float) -> None:
        import select

        if self._descriptor is None:
            time.sleep(wait)
        elif select.select([self._descriptor], [], [], wait)[0]:
            data = os.read(self._descriptor, 65536)
            if not data:  # that was all
                self._descriptor = None
                (self._job / "in.end").touch()
                return
            piece = self._job / f"in.{self._pieces}"
            piece.with_suffix(".new").write_bytes(data)
            piece.with_suffix(".new").rename(piece)
            self._pieces += 1
