"""A hundredth of the attack, in a process of its own: it forks, and counts what it holds."""

from __future__ import annotations

import pytest

from tests.attacks import races
from tests.attacks.__main__ import apart


def test_others_at_the_same_path_lose_nothing_and_see_whole_bundles() -> None:
    found = apart("races", 0.01, seed=0)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert {name: found["figures"][name] for name in races.MUST_BE_ZERO} == dict.fromkeys(races.MUST_BE_ZERO, 0)
