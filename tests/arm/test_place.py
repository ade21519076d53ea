"""What is fetched for the emulated processors, and what they are told of themselves."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.arm.place import platforms, requirements
from tests.arm.processors import PROCESSORS


def test_wheels_for_every_older_glibc_are_taken_but_none_for_a_newer_one() -> None:
    found = platforms(31)
    assert found[0] == "manylinux_2_31_aarch64"
    assert "manylinux_2_17_aarch64" in found
    assert found[-1] == "manylinux2014_aarch64"
    assert not {"manylinux_2_32_aarch64", "manylinux_2_16_aarch64"} & set(found)


def test_the_libraries_have_the_versions_of_this_machine() -> None:
    assert f"numpy=={version('numpy')}" in requirements()
    assert any(line.startswith("onnxruntime==") for line in requirements())


@pytest.mark.parametrize("name", [name for name, one in PROCESSORS.items() if one.machine == "aarch64"])
def test_an_arm_processor_describes_itself_as_the_kernel_does(name: str) -> None:
    processor = PROCESSORS[name]
    cores = processor.cpuinfo().strip().split("\n\n")
    assert len(cores) == 2
    fields = dict(line.split("\t: ") for line in cores[1].splitlines())
    assert fields["processor"] == "1"
    assert int(fields["CPU part"], 16) == processor.part
    assert ("asimddp" in fields["Features"].split()) == (name != "cortex-a72")
