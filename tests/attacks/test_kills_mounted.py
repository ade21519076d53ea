"""A hundredth of the attack, in a process of its own: it forks, and counts what it holds."""

from __future__ import annotations

import pytest

from tests.attacks import kills_mounted
from tests.attacks.__main__ import apart


def test_no_kill_on_an_overlay_or_a_mount_point_leaves_a_bundle_absent_or_mixed() -> None:
    found = apart("kills_mounted", 0.01, seed=0)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert {name: found["figures"][name] for name in kills_mounted.MUST_BE_ZERO} == dict.fromkeys(
        kills_mounted.MUST_BE_ZERO, 0
    )
