# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests need /dev/kvm, and what it means for the coverage floor when they could not run.

Everything under tests/kvm carries the marker `kvm` of vmm/pytest_plugin.py, which every project that uses pyvmm has: it
skips with the reason, or is an error where PYVMM_REQUIRE_KVM=1. The plugin is loaded here and not by its entry point
(pyproject.toml turns that off), so that coverage measures what importing it executes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")  # a machine with other work makes no test fail

pytest_plugins = ("vmm.pytest_plugin",)
DEVICE_TESTS = Path(__file__).parent / "kvm"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CoverageFloor(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(DEVICE_TESTS):
            item.add_marker(pytest.mark.kvm)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Assembled payloads of a test run stay out of the cache of whoever runs it, in processes started by tests too."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def uncovered() -> dict[str, str]:
    """The environment of a process that ^C will meet. coverage takes a lock, in Python, when it notes a new file: a
    KeyboardInterrupt in the middle of that leaves it taken, and the process waits for it for ever.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.fixture
def forks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What children by fork run counts for coverage, though they end by os._exit. Each takes a fifth of a second for
    that, so those tests ask that show what a child does, and not all (`patch = _exit` of coverage).
    """
    leave = os._exit

    def note_and_leave(status: int) -> NoReturn:
        coverage = sys.modules.get("coverage")  # emulated hosts have none
        noted = coverage and coverage.Coverage.current()
        if noted:
            noted.stop()
            with contextlib.suppress(Exception):  # a child in a sandbox may not write
                noted.save()
        leave(status)

    monkeypatch.setattr(os, "_exit", note_and_leave)


class CoverageFloor:
    """Lifts the coverage floor, and says so, where tests/kvm was skipped: half of vmm cannot run there."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.lifted = config, False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Reports, unlike fixtures, reach the process that weighs the coverage under pytest-xdist too.
        from vmm.pytest_plugin import NO_KVM  # not before pytest has rewritten its asserts

        coverage = self.config.pluginmanager.getplugin("_cov")
        if coverage and report.skipped and f"Skipped: {NO_KVM}" in str(report.longrepr) and not self.lifted:
            coverage.options.cov_fail_under = 0
            self.lifted = True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.lifted:
            terminalreporter.write_line("coverage floor not applied: tests/kvm could not run")
