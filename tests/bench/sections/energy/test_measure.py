"""Energy from a real tree of files whose counters run, as the kernel's do."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.machine.nvml import Nvml
from mtl_deploy.bench.machine.power_meters import NvmlMeter, RaplMeter, find_meters
from mtl_deploy.bench.machine.power_trace import Recorder, Trace
from mtl_deploy.bench.sections.energy import measure as energy
from mtl_deploy.bench.sections.energy.measure import Used, measure_energy
from mtl_deploy.bench.sections.energy.section import EnergySection
from mtl_deploy.runtime.errors import NoGpuError
from tests.bench.printed import printed

BATCH = np.zeros((2,), np.uint8)


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


def rapl(root: Path, number: int, microjoules: int, largest: int = 262143328850) -> Path:
    folder = f"sys/class/powercap/intel-rapl:{number}"
    write(root, {
        f"{folder}/name": f"package-{number}",
        f"{folder}/energy_uj": str(microjoules),
        f"{folder}/max_energy_range_uj": str(largest),
    })  # fmt: skip
    write(root, {f"{folder}:0/name": "core", f"{folder}:0/energy_uj": "5"})
    return root / folder / "energy_uj"


def test_packages_are_added_up_and_counters_wrap_round(tmp_path: Path) -> None:
    first, second = rapl(tmp_path, 0, 900, largest=999), rapl(tmp_path, 1, 10)
    (meter,) = find_meters(tmp_path).meters
    assert (meter.source, meter.domain, meter.counts) == ("RAPL", "package-0 + package-1", True)
    assert meter.read() == 0
    first.write_text("100\n")  # 100 to the end, and 100 more
    second.write_text("60\n")
    assert meter.read() == pytest.approx(250e-6)
    first.write_text("130\n")
    assert meter.read() == pytest.approx(280e-6)


def test_a_counter_that_only_root_may_read_is_left_out_with_the_reason(tmp_path: Path) -> None:
    file = rapl(tmp_path, 0, 1)
    file.unlink()
    file.mkdir()  # as unreadable to root, who runs tests in containers, as a forbidden file is to others
    found = find_meters(tmp_path)
    assert found.meters == ()
    assert any("only root may" in reason for reason in found.missing)


def test_a_machine_without_meters_has_none(tmp_path: Path) -> None:
    found = find_meters(tmp_path)
    assert found.meters == ()
    assert "RAPL: the kernel shows no package" in found.missing
    assert measure_energy({}, BATCH, found.meters, seconds=1, images=2) is None


def channel(folder: str, number: int, label: str, millivolts: int, milliamperes: int) -> dict[str, str]:
    return {
        f"{folder}/in{number}_label": label,
        f"{folder}/in{number}_input": str(millivolts),
        f"{folder}/curr{number}_input": str(milliamperes),
    }


def test_a_jetson_s_board_rail_is_metered_alone(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    write(tmp_path, channel(folder, 1, "VDD_IN", 19000, 500))
    write(tmp_path, channel(folder, 2, "VDD_CPU_GPU_CV", 19000, 100))
    write(tmp_path, {f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": "3"})
    meter = find_meters(tmp_path).meters[0]
    assert (meter.source, meter.domain, meter.counts) == ("INA3221", "VDD_IN", False)
    assert meter.read() == pytest.approx(9.5)
    (tmp_path / folder / "curr1_input").write_text("1000\n")
    assert meter.read() == pytest.approx(19)
    (tmp_path / folder / "curr1_input").unlink()
    assert meter.read() is None


def test_rails_of_a_board_without_one_for_all_are_added_up(tmp_path: Path) -> None:
    drivers = "sys/bus/i2c/drivers/ina3221"
    write(tmp_path, channel(f"{drivers}/1-0040/hwmon/hwmon1", 1, "VDD_GPU_SOC", 20000, 200))
    write(tmp_path, channel(f"{drivers}/1-0040/hwmon/hwmon1", 2, "NC", 0, 0))
    write(tmp_path, channel(f"{drivers}/1-0041/hwmon/hwmon2", 2, "VIN_SYS_5V0", 5000, 300))
    meter = find_meters(tmp_path).meters[0]
    assert meter.domain == "VDD_GPU_SOC + VIN_SYS_5V0"
    assert meter.read() == pytest.approx(5.5)


def test_older_jetsons_tell_milliwatts(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(tmp_path, {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": "2500"})
    meter = find_meters(tmp_path).meters[0]
    assert (meter.domain, meter.read()) == ("POM_5V_IN", pytest.approx(2.5))


def test_joules_between_readings_are_interpolated() -> None:
    counted, sampled = Trace(counts=True), Trace(counts=False)
    for second, joules, watts in ((0, 100, 10), (1, 110, 10), (2, 140, 30)):
        counted.add(second, joules)
        sampled.add(second, watts)
    assert counted.joules(0.5, 1.5) == pytest.approx(5 + 15)
    assert sampled.joules(0, 2) == pytest.approx(10 + 20)
    assert counted.joules(0.5, 2.5) is None  # not over
    assert Trace(counts=True).joules(0, 1) is None


class Board:
    """A tree whose package counter runs: by idle power, and by the energy that calls add."""

    def __init__(self, root: Path, watts: float) -> None:
        self.file = rapl(root, 0, 0)
        self.watts, self.added = watts, 0.0
        self.begun = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.002):
            fresh = self.file.with_suffix(".new")
            fresh.write_text(f"{int(1e6 * (self.watts * (time.monotonic() - self.begun) + self.added))}\n")
            fresh.replace(self.file)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path, watts=5)
    yield made
    made.close()


class DrawingHost:
    """A contestant here whose calls take 5 ms and draw some energy."""

    def __init__(self, board: Board, joules: float, title: str, interrupt_at: int = 10**9) -> None:
        self.spec: Any = SimpleNamespace(title=title, settings=SimpleNamespace(providers=None), engines=False)
        self.details, self.name = "CPUExecutionProvider", title
        self.board, self.joules = board, joules
        self.runs, self.interrupt_at = 0, interrupt_at

    def __call__(self, batch: Any) -> Mapping[str, Any]:
        time.sleep(0.005)
        self.board.added += self.joules
        return {}

    def run(self, function: Callable[..., Any], /, *args: Any) -> Any:
        self.runs += 1
        if self.runs >= self.interrupt_at:
            raise KeyboardInterrupt
        return function(self, *args)

    def close(self) -> None:
        pass


def test_energy_of_an_image_is_what_the_meter_says_meanwhile(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "SLOT_S", 0.2)
    hosts: Any = {"shared": DrawingHost(board, 1.0, "shared"), "separate": DrawingHost(board, 3.0, "3 separate")}
    found = measure_energy(hosts, BATCH, find_meters(tmp_path).meters, seconds=0.6, idle_seconds=0.3, images=2)
    assert found is not None
    assert (found.source, found.domain) == ("RAPL", "package-0")
    assert found.idle_watts == pytest.approx(5, rel=0.3)
    for name, drawn in (("shared", 1.0), ("separate", 3.0)):
        used = found.contestants[name]
        own = drawn * sum(used.images) / 2  # and the idle power on top
        assert sum(used.joules) == pytest.approx(own + 5 * sum(used.seconds), rel=0.2)
        assert len(used.joules) == 3
    document = found.to_dict()
    assert set(document["contestants"]["shared"]) == {"joules_per_image", "watts", "seconds"}
    text = printed(EnergySection(), found)
    assert "J/image" in text
    assert "Of package-0" in text


def test_an_interrupt_keeps_whole_rounds(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SLOT_S", 0.05)
    meters = find_meters(tmp_path).meters
    hosts: Any = {"shared": DrawingHost(board, 1.0, "shared", interrupt_at=3)}
    found = measure_energy(hosts, BATCH, meters, seconds=0.15, idle_seconds=0, images=2)
    assert found is not None
    assert found.interrupted
    assert len(found.contestants["shared"].joules) == 2
    assert found.idle_watts is None
    hosts = {"shared": DrawingHost(board, 1.0, "shared", interrupt_at=1)}
    with pytest.raises(KeyboardInterrupt):
        measure_energy(hosts, BATCH, meters, seconds=0.15, idle_seconds=0, images=2)


def test_a_meter_that_stands_still_or_fails_gives_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SLOT_S", 0.02)
    file = rapl(tmp_path, 0, 7)
    still: Any = SimpleNamespace(added=0.0)
    options: Any = {"seconds": 0.06, "idle_seconds": 0, "images": 1}
    meters = find_meters(tmp_path).meters
    assert measure_energy({"shared": DrawingHost(still, 0, "shared")}, BATCH, meters, **options) is None  # type: ignore[dict-item]
    file.unlink()
    assert measure_energy({"shared": DrawingHost(still, 0, "shared")}, BATCH, meters, **options) is None  # type: ignore[dict-item]


def test_the_interval_is_student_s_over_rounds() -> None:
    used = Used(joules=(1.0, 2.0, 3.0), seconds=(1.0, 1.0, 1.0), images=(1, 1, 1))
    found = used.joules_per_image
    assert found.value == 2
    assert found.high - found.value == pytest.approx(4.30265 / math.sqrt(3))
    assert used.watts == 2


class Nvidia:
    """A stand-in for nvidia-ml-py: there is no GPU here."""

    class NVMLError(Exception):
        pass

    def __init__(self, name: str = "GPU", *, counts: bool = True) -> None:
        self.name, self.counts, self.millijoules = name, counts, 5000

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.name.encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 70_000

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 60

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        return 1500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x24 | 0x1

    def nvmlDeviceGetViolationStatus(self, handle: int, policy: int) -> Any:
        return SimpleNamespace(violationTime=2_000_000_000)


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvidia]:
    def install(**named: Any) -> Nvidia:
        made = Nvidia(**named)
        monkeypatch.setitem(__import__("sys").modules, "pynvml", made)
        monkeypatch.setattr("mtl_deploy.bench.machine.nvml.find_gpu", lambda: SimpleNamespace(name="GPU"))
        return made

    return install


def test_a_gpu_counts_its_energy_or_tells_its_power(nvidia: Callable[..., Nvidia]) -> None:
    nvidia()
    meter = NvmlMeter(Nvml())
    assert (meter.domain, meter.counts, meter.read()) == ("GPU", True, 5)
    nvidia(counts=False)
    meter = NvmlMeter(Nvml())
    assert (meter.counts, meter.read()) == (False, 70)


def test_a_gpu_tells_what_slows_it(nvidia: Callable[..., Nvidia]) -> None:
    nvidia()
    assert Nvml().state() == {
        "temperature_c": 60,
        "clock_mhz": 1500,
        "slowed_by": ["power limit", "heat (driver)"],
        "slowed_s": {"power": 2.0, "thermal": 2.0},
    }


def test_another_gpu_than_cuda_s_is_not_metered(nvidia: Callable[..., Nvidia]) -> None:
    nvidia(name="Other")
    with pytest.raises(NoGpuError, match="CUDA_DEVICE_ORDER"):
        Nvml()


def test_a_recorder_reads_in_the_background(tmp_path: Path) -> None:
    rapl(tmp_path, 0, 1)
    with Recorder(RaplMeter([tmp_path / "sys/class/powercap/intel-rapl:0"])) as recorder:
        begin = time.monotonic()
        time.sleep(0.1)
        assert recorder.joules(begin, time.monotonic()) == 0
