"""A hundredth of the attack, in a process of its own: it forks, and counts what it holds."""

from __future__ import annotations

import pytest

from tests.attacks import soak
from tests.attacks.__main__ import apart


def test_many_calls_and_many_models_answer_alike_and_leave_nothing() -> None:
    found = apart("soak", 0.01, seed=0)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert {name: found["figures"][name] for name in soak.MUST_BE_ZERO} == dict.fromkeys(soak.MUST_BE_ZERO, 0)
