from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mtl_deploy.runtime.measured.here import Processor, libraries, processor

X86 = """processor\t: 0
model name\t: Some CPU @ 2.0GHz
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse avx512_vnni
processor\t: 1
model name\t: Some CPU @ 2.0GHz
flags\t\t: fpu sse avx512_vnni
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd05
processor\t: 1
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0a
"""


def described(root: Path, text: str) -> Processor:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(text)
    return processor(root)


def test_a_processor_is_its_name_cores_and_instructions_and_not_its_clock(tmp_path: Path) -> None:
    first = described(tmp_path, X86.format(mhz=1999.9))
    assert first.name == "Some CPU @ 2.0GHz"
    assert described(tmp_path, X86.format(mhz=3200.0)) == first
    assert described(tmp_path, X86.replace("avx512_vnni", "avx2")) != first
    assert described(tmp_path, X86.replace("Some", "Other")) != first
    assert processor() == processor()
    assert processor().cores >= 1


def test_arm_names_its_parts_and_a_system_that_says_nothing_is_no_error(tmp_path: Path) -> None:
    assert described(tmp_path, ARM).name == "CPU implementer 0x41 CPU part 0xd05 0xd0a"
    (tmp_path / "empty").mkdir()
    nothing = processor(tmp_path / "empty")
    assert nothing.name
    assert nothing.instructions == ""


def test_versions_are_found_without_importing_anything() -> None:
    code = (
        "import sys; from mtl_deploy.runtime.measured.here import libraries; print(libraries()); "
        "print('onnxruntime' in sys.modules, 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "False False"
    assert str(libraries()) == done.stdout.splitlines()[0]


def test_openvino_that_pip_did_not_install_says_its_version_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    expected = libraries()
    known = metadata.version

    def version(name: str) -> str:
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    assert libraries() == expected
