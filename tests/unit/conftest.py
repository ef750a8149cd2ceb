# SPDX-License-Identifier: GPL-2.0-or-later
"""Values that several tests without a device start from: a host that was measured, a documented JSON's schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import vmm.report
from tools.chromium import Chromium, program
from vmm.host.hypercall_insn import Attempt, Hypercall
from vmm.host.measured import HostFacts, PvOffer
from vmm.host.ring0 import judge
from vmm.host.surroundings import Setting
from vmm.host.sysfs import Backend, Nested
from vmm.host.userfaultfd import Userfault

SCHEMAS = Path(vmm.report.__file__).parent / "schemas"


def closed(schema: Any) -> Any:
    """The same schema with no room for keys that it does not describe: what we write must be documented."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        if "properties" in made:
            made.setdefault("additionalProperties", False)
        return made
    return [closed(each) for each in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="session")
def follows() -> Callable[[str, Any], Any]:
    """`follows("probe", document)`: the document as a reader gets it, after it was held against its schema."""

    @cache  # going over a schema takes longer than most documents
    def validator(name: str) -> jsonschema.Draft202012Validator:
        schema = closed(json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")))
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema)

    def check(name: str, document: Any) -> Any:
        read = json.loads(document if isinstance(document, str) else json.dumps(document, allow_nan=False))
        validator(name).validate(read)
        return read

    return check


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser for the tests of one file, which skip where there is none."""
    if program() is None:
        pytest.skip("needs chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def host_facts() -> HostFacts:
    """A host with SVM, whose release holds what a terminal must not get."""
    ud = Attempt("#UD", "the guest took #UD, hypercalls rose by 0")
    delivered = Attempt("delivered", "RAX 0, hypercalls rose by 1")
    return HostFacts(
        setting=Setting(
            release="6.1.0\x1b[2J|<b>",
            machine="x86_64",
            cpus=4,
            backend=Backend("svm", ("kvm_amd",)),
            nested=Nested(False, "a reason"),
            clocksource="tsc",
            clocksources=("tsc", "hpet"),
            parameters={"kvm.ignore_msrs": "N"},
            userfault=Userfault(True, "/dev/userfaultfd"),
            container=None,
        ),
        api_version=12,
        ring0=judge(2003, 0, 0.98),
        hypercall=Hypercall("vmmcall", True, {"vmcall": ud, "vmmcall": delivered}),
        capabilities={"USER_MEMORY": 1},
        pv=PvOffer(0x01007EFB, 0),
    )
