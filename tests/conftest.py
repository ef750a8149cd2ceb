# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that decides whether a test may use /dev/kvm, and what it means when it may not.

Everything under tests/kvm carries the marker `kvm`, and so needs the device opened *and used*. Where that fails, those
tests are skipped with the reason; PYVMM_REQUIRE_KVM=1, for machines that should have the device, makes it an error.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DEVICE_TESTS = Path(__file__).parent / "kvm"
NO_KVM = "no usable KVM"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CoverageFloor(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(DEVICE_TESTS):
            item.add_marker(pytest.mark.kvm)


@pytest.fixture(scope="session")
def kvm_device() -> None:
    """A /dev/kvm on which a VM can be made; without one, a skip, or an error where PYVMM_REQUIRE_KVM=1."""
    # Imported here, so that the tests without a device do without the extension too. One that was not built is no
    # reason to skip: the ImportError is an error.
    from vmm.errors import HostError
    from vmm.kvm import Kvm

    try:
        with Kvm.open() as kvm, kvm.create_vm():
            pass
    except HostError as error:
        if os.environ.get("PYVMM_REQUIRE_KVM") == "1":
            pytest.fail(f"PYVMM_REQUIRE_KVM=1, and there is {NO_KVM}: {error}", pytrace=False)
        pytest.skip(f"{NO_KVM}: {error}")


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Assembled payloads of a test run stay out of the cache of whoever runs it, in processes started by tests too."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _skip_rule(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("kvm"):
        request.getfixturevalue("kvm_device")


class CoverageFloor:
    """Lifts the coverage floor, and says so, where tests/kvm was skipped: half of vmm cannot run there."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.lifted = config, False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Reports, unlike fixtures, reach the process that weighs the coverage under pytest-xdist too.
        coverage = self.config.pluginmanager.getplugin("_cov")
        if coverage and report.skipped and f"Skipped: {NO_KVM}" in str(report.longrepr) and not self.lifted:
            coverage.options.cov_fail_under = 0
            self.lifted = True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.lifted:
            terminalreporter.write_line(f"coverage floor not applied: {NO_KVM}, so tests/kvm did not run")
