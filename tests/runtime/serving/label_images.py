"""Labels a folder with Ray on a local cluster of two workers, one of which may be killed in the middle."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import ray

from mtl_deploy.runtime.serving.ray_data import RUN, label


def kill_one(output: Path, killed: list[int]) -> None:
    """Kill a worker once the first parts are there."""
    while not killed:
        time.sleep(0.02)
        if len(list(output.glob("part-*.parquet"))) < 2:
            continue
        for process in psutil.Process().children(recursive=True) + list(psutil.process_iter()):
            try:
                if "Worker" in process.name() or "MapWorker" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    break
            except (psutil.Error, ProcessLookupError):
                continue


def main(bundle: str, source: str, output: str, part: str, kill: str) -> None:
    """Label, and print what was done."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killed: list[int] = []
    if kill == "kill":
        threading.Thread(target=kill_one, args=(Path(output), killed), daemon=True).start()
    done = label(Path(bundle), Path(source), Path(output), workers=2, part=int(part))
    assert (Path(output) / RUN).is_file()
    print({**asdict(done), "killed": len(killed)})


if __name__ == "__main__":
    main(*sys.argv[1:])
