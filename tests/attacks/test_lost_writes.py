"""A hundredth of the attack, in a process of its own: it forks, and counts what it holds."""

from __future__ import annotations

import pytest

from tests.attacks import lost_writes
from tests.attacks.__main__ import apart


def test_no_power_failure_leaves_a_bundle_absent_or_mixed_or_loses_a_finished_one() -> None:
    found = apart("lost_writes", 0.01, seed=0)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert {name: found["figures"][name] for name in lost_writes.MUST_BE_ZERO} == dict.fromkeys(
        lost_writes.MUST_BE_ZERO, 0
    )
