"""Lives of workers, each a real process of its own that can be killed, begun within milliseconds.

A life is forked from a process that has imported everything already, and opens database, files and sockets anew, as a
process does that was started from the command line; only the seconds that importing takes are saved. As a program
(`python -m tests.journeys.lives`) it reads `worker` or `tick` line by line and prints the pid of each life.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent.parent


class Life:
    """A process on its way. The handle is a pidfd: it never means another process that was given the same pid."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._handle = -1

    def is_over(self, wait_seconds: float = 0.0) -> bool:
        """Whether it has ended, after waiting for that so long at most."""
        if self._handle < 0:
            return True
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(wait_seconds * 1000))

    def kill(self) -> bool:
        """SIGKILL. False if it had ended by itself."""
        if self.is_over():
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        assert self.is_over(20), f"process {self.pid} survives SIGKILL"
        return True

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


class Lives:
    """The process that lives are forked from."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, what: str) -> Life:
        """A new life, `worker` or `tick`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return Life(int(self._process.stdout.readline()))


@contextmanager
def lives(environ: Mapping[str, str], log: IO[str]) -> Iterator[Lives]:
    """Ready to begin lives with these settings; what they say goes into `log`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.journeys.lives"],
        cwd=ROOT,
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    ) as process:
        assert process.stdin is not None
        try:
            yield Lives(process)
        finally:
            process.stdin.close()


# --- as a program -----------------------------------------------------------------------------------------------------


def main() -> None:
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a life ended: the system forgets it at once
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _live(line.strip())
        print(pid, flush=True)


def _import_everything() -> None:
    import connectors
    import web.survey.composer
    import web.wiring
    import web.worker  # noqa: F401

    for kind in ("csv", "smtp"):
        connectors.load(kind)


def _live(what: str) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _work(what)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _work(what: str) -> None:
    from core.jobs import tick
    from web.security import set_up_logging
    from web.settings import load
    from web.wiring import build_context, close_context
    from web.worker import Worker

    set_up_logging()
    context = build_context(load(os.environ, Path("no.env")))
    if what == "worker":
        Worker(context).run()
    else:
        for report in tick.run(context):
            for message in report.messages:
                print(f"{report.job}: {message}", file=sys.stderr)
    close_context(context)


if __name__ == "__main__":
    main()
