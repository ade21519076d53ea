"""OpenMP's idle threads sleep in an export: on a busy machine they would spin longer than they work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("said", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_threads_sleep_in_an_export_unless_the_user_says_otherwise(said: str | None, policy: str) -> None:
    code = (
        "import os, sys\n"
        "from mtl_deploy.export import cli, pipeline\n"
        "def export(options, progress):\n"
        "    assert 'torch' not in sys.modules, 'the variable is read when OpenMP is loaded'\n"
        "    print(os.environ['OMP_WAIT_POLICY'])\n"
        "    sys.exit(0)\n"
        "pipeline.export = export\n"
        "try:\n"
        "    cli.main([sys.executable])\n"
        "finally:\n"
        "    print(os.environ.get('OMP_WAIT_POLICY'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if said is None else {"OMP_WAIT_POLICY": said}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [policy, str(said)], done.stderr  # what is started afterwards waits as it likes
