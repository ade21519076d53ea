"""Commands keep freed memory for what comes next."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOOP = """
import resource, sys
from mtl_deploy.runtime.console.heap import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit(3)
b"x" * (48 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * (48 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    ran = subprocess.run([sys.executable, "-c", _LOOP, way], capture_output=True, text=True, check=False)
    if ran.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_large_blocks_that_were_freed_are_used_again() -> None:
    usual = faults("usual")
    assert usual > 10 * 10_000
    assert faults("kept") * 20 < usual  # in pages of 4 KiB
