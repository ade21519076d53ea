"""What a command need not spend processor time on."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from mtl_deploy.runtime.console.resting import settled, settling, uncollected


class Cycle:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self, freed: list[bool]) -> None:
        self.me, self.freed = self, freed

    def __del__(self) -> None:
        self.freed.append(True)


def test_nothing_is_looked_for_until_the_work_has_ended() -> None:
    frozen = gc.get_freeze_count()
    freed: list[bool] = []
    with settled():
        with settling():
            assert not gc.isenabled()
            Cycle(freed)
        assert gc.isenabled()
        gc.collect()
        assert freed == []
    assert gc.get_freeze_count() <= frozen
    gc.collect()
    assert freed == [True]


@pytest.mark.parametrize("without", [settling, uncollected])
def test_a_collector_that_is_off_stays_off(without: Callable[[], AbstractContextManager[None]]) -> None:
    gc.disable()
    try:
        with without():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
