"""A module for tests to run in a process of its own: ``main()`` does what its first argument names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mtl_deploy.runtime.errors import BackendError, WorkError


def main() -> int | None:
    """Do it."""
    what = sys.argv[1]
    if what == "describe":
        print("a library says hello")
        found = {
            "arguments": sys.argv[2:],
            "paths": sys.path,
            "environment": os.environ.get("MTL_TEST"),
            "stdin": sys.stdin.read(),
            "session": os.getsid(0),
            "json": json.__file__,
        }
        print(json.dumps(found))
    elif what == "backend":
        raise BackendError("the library\nis missing; install it")
    elif what == "work":
        raise WorkError("the work failed")
    elif what == "code":
        print("not this line", file=sys.stderr)
        print("its last words", file=sys.stderr)
        return int(sys.argv[2])
    elif what == "signal":
        os.kill(os.getpid(), int(sys.argv[2]))
    elif what == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
    elif what in ("sleep", "leave"):
        if "stubborn" in sys.argv:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleeper = "import time; time.sleep(300)"
        if "tidy" in sys.argv:  # ends by itself when it is asked to; what it started does not
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())
            sleeper = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {sleeper}"
        pids = [os.getpid(), subprocess.Popen([sys.executable, "-c", sleeper]).pid]
        file = Path(sys.argv[2])
        file.write_text(" ".join(map(str, pids)), encoding="ascii")
        file.rename(f"{file}.done")
        if what == "sleep":
            time.sleep(300)
    return None
