"""What the system reports about itself, from trees of files as kernels write them, and from this machine's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.bench.machine.environment import after_warnings, environment, snapshot, usable_cores, warnings

CPU = "sys/devices/system/cpu"


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


def quiet(root: Path) -> dict[str, Any]:
    return environment(root) | {"load_before": 0.0, "usable_cores": 4}


def between(root: Path, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    write(root, before)
    first = snapshot(root)
    write(root, after)
    return after_warnings(first, snapshot(root))


def test_this_machine_is_described_and_its_description_is_json() -> None:
    found = environment()
    json.dumps([found, snapshot()])
    assert found["usable_cores"] == usable_cores() >= 1
    assert len(found["affinity"]) == found["usable_cores"]
    assert found["libraries"]["numpy"]
    assert after_warnings(snapshot(), snapshot()) is not None


def test_a_machine_that_tells_nothing_is_described_and_warned_of_nothing(tmp_path: Path) -> None:
    found = quiet(tmp_path)
    for word in ("governor", "governors", "frequency_range_mhz", "boost", "smt", "virtual_machine", "memory_bytes"):
        assert found[word] is None
    assert warnings(found) == []
    state = snapshot(tmp_path)
    assert all(value is None for value in state.values())
    assert after_warnings(state, state) == []


def test_a_load_that_the_command_s_own_start_may_have_caused_is_no_warning(tmp_path: Path) -> None:
    """The load average is believed only where nothing tells what other processes took; where it can be told, that decides."""
    found = quiet(tmp_path) | {"load_before": 0.9, "usable_cores": 2}
    assert warnings(found, tmp_path) == ["the machine was busy before the measurement (load 0.9 on 2 cores)"]
    assert warnings(found | {"load_before": 0.4}, tmp_path) == []
    write(tmp_path, {"proc/stat": "cpu  1000 0 0 9000 0 0 0 0 0 0"})
    assert warnings(found, tmp_path) == []
    assert between(tmp_path, {}, {"proc/stat": "cpu  1100 0 0 9900 0 0 0 0 0 0"}) == []
    taken = between(tmp_path, {}, {"proc/stat": "cpu  1600 0 0 10400 0 0 0 0 0 0"})
    assert taken == ["other processes took 50 % of the processor's time during the measurement"]


def test_files_that_are_no_text_or_no_number_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "<unknown>", "proc/stat": "cpu x", "proc/loadavg": "?"})
    (tmp_path / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_bytes(b"\xff\xfe")
    state = snapshot(tmp_path)
    assert state["clock_mhz"] is None
    assert state["temperatures_c"] is None


def test_governors_clocks_and_boost(tmp_path: Path) -> None:
    for core, governor in enumerate(("performance", "performance", "powersave")):
        write(tmp_path, {
            f"{CPU}/cpu{core}/cpufreq/scaling_governor": governor,
            f"{CPU}/cpu{core}/cpufreq/scaling_driver": "intel_pstate",
            f"{CPU}/cpu{core}/cpufreq/scaling_min_freq": "800000",
            f"{CPU}/cpu{core}/cpufreq/scaling_max_freq": str(3000000 + 100000 * core),
        })  # fmt: skip
    write(tmp_path, {f"{CPU}/intel_pstate/no_turbo": "0", f"{CPU}/smt/active": "1"})
    found = quiet(tmp_path)
    assert found["governors"] == {"performance": 2, "powersave": 1}
    assert found["frequency_range_mhz"] == [800, 3200]
    assert (found["frequency_driver"], found["boost"], found["smt"]) == ("intel_pstate", True, True)
    assert warnings(found) == [
        "cores have different governors (performance on 2, powersave on 1): the clock depends on which core a thread runs on"
    ]
    write(tmp_path, {f"{CPU}/cpu{core}/cpufreq/scaling_governor": "schedutil" for core in range(3)})
    write(tmp_path, {f"{CPU}/cpufreq/boost": "0"})
    found = quiet(tmp_path)
    assert found["boost"] is False
    assert warnings(found) == ["the clock may vary: governor 'schedutil', 'performance' holds it"]


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/box", "sys/fs/cgroup/box/cpu.max": "150000 100000", "sys/fs/cgroup/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"},
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/box",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        },
    ],
    ids=["own", "namespace", "parent", "version 1"],
)  # fmt: skip
def test_a_container_s_processor_limit(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    found = quiet(tmp_path)
    assert found["container_cores"] == 1.5
    assert any(
        "the container may use the processor time of 1.5 of 4 cores" in text and "--threads 1" in text
        for text in warnings(found)
    )


def test_a_container_that_was_stopped_by_its_limit(tmp_path: Path) -> None:
    stat = "sys/fs/cgroup/cpu.stat"
    write(tmp_path, {"proc/self/cgroup": "0::/"})
    found = between(
        tmp_path,
        {stat: "usage_usec 5\nnr_periods 100\nnr_throttled 10"},
        {stat: "usage_usec 9\nnr_periods 300\nnr_throttled 60"},
    )
    assert found == [
        "the container's processor limit stopped it in 50 of 200 periods; use fewer --threads, or raise the limit"
    ]


def test_memory_battery_and_boards(tmp_path: Path) -> None:
    write(tmp_path, {
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 400000 kB\nSwapTotal: 100 kB",
        "proc/cpuinfo": "model name : Fast\nflags : fpu hypervisor sse",
        "sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "0",
        "sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/status": "Discharging",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3",
        "var/lib/nvpmodel/status": "pmode:0002",
    })  # fmt: skip
    (tmp_path / "proc/device-tree").mkdir()
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    found = quiet(tmp_path)
    assert found["model"] == "NVIDIA Jetson Orin Nano"
    assert (found["processor"], found["virtual_machine"], found["power_source"]) == ("Fast", True, "battery")
    assert found["jetson"] == {"release": "R36 (release), REVISION: 4.3", "power_mode": "pmode:0002"}
    assert (found["memory_bytes"], found["swap_bytes"]) == (8192000000, 102400)
    assert [text.split(" (")[0] for text in warnings(found)] == [
        "the machine runs on battery, where clocks are often lower",
        "little memory was free before the measurement",
    ]
    write(tmp_path, {"sys/class/power_supply/AC/online": "1"})
    assert environment(tmp_path)["power_source"] == "mains"


def test_heat(tmp_path: Path) -> None:
    count = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"
    clock = f"{CPU}/cpu0/cpufreq/scaling_cur_freq"
    zone, chip = "sys/class/thermal/thermal_zone0", "sys/class/hwmon/hwmon0"
    before = {
        count: "3", clock: "3000000",
        f"{zone}/type": "cpu-thermal", f"{zone}/temp": "50000",
        f"{zone}/trip_point_0_type": "passive", f"{zone}/trip_point_0_temp": "85000",
        f"{chip}/name": "k10temp", f"{chip}/temp1_label": "Tctl", f"{chip}/temp1_input": "50000", f"{chip}/temp1_crit": "95000",
    }  # fmt: skip
    after = {count: "5", clock: "2000000", f"{zone}/temp": "83000", f"{chip}/temp1_input": "94000"}
    assert between(tmp_path, before, after) == [
        "the processor throttled 2 times for heat during the measurement",
        "the processor's clock fell from 3000 to 2000 MHz during the measurement",
        "cpu-thermal (thermal_zone0) is at 83 °C, its limit is 85 °C",
        "k10temp Tctl (hwmon0) is at 94 °C, its limit is 95 °C",
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("0", "50005", ["the Raspberry Pi reports low voltage, throttling"]),
        ("50000", "50000", []),  # since it started, not now
        ("0", "20000", ["the Raspberry Pi reports a capped clock"]),  # meanwhile
    ],
)
def test_a_raspberry_pi(tmp_path: Path, before: str, after: str, expected: list[str]) -> None:
    file = "sys/devices/platform/soc/soc:firmware/get_throttled"
    assert between(tmp_path, {file: before}, {file: after}) == expected


def test_stolen_time_other_processes_and_swap(tmp_path: Path) -> None:
    found = between(
        tmp_path,
        {"proc/stat": "cpu  1000 0 0 9000 0 0 0 0 0 0", "proc/vmstat": "pswpin 5"},
        {"proc/stat": "cpu  2000 0 0 12000 0 0 0 200 0 0", "proc/vmstat": "pswpin 12"},
    )
    assert found == [
        "the hypervisor took 5 % of the processor's time for other machines",
        "other processes took 24 % of the processor's time during the measurement",
        "the machine read 7 pages back from swap: it has too little memory",
    ]


def test_the_measurement_s_own_processes_are_not_others(tmp_path: Path) -> None:
    import os

    def processes(own: int, child: int) -> dict[str, str]:
        times = {os.getpid(): (1, own), 900_001: (os.getpid(), child), 900_002: (900_001, 10), 900_003: (1, 5000)}
        line = "{} (a b) S {} 0 0 0 0 0 0 0 0 0 {} 0 0 0 20 0"
        return {f"proc/{pid}/stat": line.format(pid, parent, used) for pid, (parent, used) in times.items()}

    found = between(
        tmp_path,
        {"proc/stat": "cpu  1000 0 0 9000 0 0 0 0 0 0"} | processes(100, 100),
        {"proc/stat": "cpu  2000 0 0 12000 0 0 0 0 0 0"} | processes(300, 900),
    )
    assert found == []


def test_a_gpu_that_was_slowed_down() -> None:
    def state(thermal_s: float, by: list[str]) -> dict[str, Any]:
        return {"gpu": {"slowed_by": by, "slowed_s": {"power": None, "thermal": thermal_s}}}

    assert after_warnings(state(1, []), state(3.5, ["power limit"])) == [
        "the GPU was slowed down: power limit, thermal limit for 2.5 s"
    ]
    assert after_warnings(state(1, []), state(1, [])) == []
    assert after_warnings({}, {}) == []
