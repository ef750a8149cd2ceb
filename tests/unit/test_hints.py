# SPDX-License-Identifier: GPL-2.0-or-later
"""`typing.get_type_hints` works on everything that `vmm` shows, as a user's own tools call it: in a process that did
nothing but import it.
"""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import inspect, typing
import vmm

seen = failed = 0
for name in vmm.__all__:
    shown = getattr(vmm, name)
    looked_at = {name: shown}
    for key, each in vars(shown).items():
        each = getattr(each, "fget", None) or getattr(each, "__func__", each)
        if inspect.isfunction(each):
            looked_at[f"{name}.{key}"] = each
    for label, each in looked_at.items():
        seen += 1
        try:
            typing.get_type_hints(each)
        except Exception as error:
            failed += 1
            print(label, repr(error))
print(seen > 150, failed)
hints = typing.get_type_hints(vmm.Machine.run)
print(hints["return"] is vmm.Result, hints["timeout"])
"""


def test_hints_of_the_public_api() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    assert done.stdout == "True 0\nTrue float | None\n", done.stdout + done.stderr


def test_nothing_is_imported_for_it_before_somebody_asks(uncovered: dict[str, str]) -> None:
    text = (
        "import sys, vmm; vmm.Machine; print('ast' in sys.modules, 'inspect' in sys.modules, 'typing' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, env=uncovered)
    assert done.stdout == "False False False\n", done.stdout + done.stderr


MADE_LATER = """
import types, vmm, vmm.payload.guest as module
vmm.Kvm
text = "def f():\\n import json\\n class A: pass\\n return json, A, len\\nf()"
made = types.FunctionType(compile(text, "x", "exec"), vars(module))
made()
print("as before")
"""


def test_a_function_that_is_made_after_it_can_import_and_make_classes() -> None:
    done = subprocess.run([sys.executable, "-c", MADE_LATER], capture_output=True, text=True, check=False)
    assert done.stdout == "as before\n", done.stdout + done.stderr
