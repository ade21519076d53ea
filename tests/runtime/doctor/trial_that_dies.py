"""The doctor's trial, in which opening one file ends the process as a library would."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.doctor import trial


def main() -> None:
    guilty = sys.argv.pop(1)
    real = trial._once

    def once(file: Path) -> dict[str, Any]:
        if str(file).endswith(guilty):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(file)

    trial._once = once
    trial.main()
