# SPDX-License-Identifier: GPL-2.0-or-later
"""Real SVM and VMX hosts without the hardware: `make hosts` (docs/hostlab.md).

hosts.py      which host: emulator, kernel, CPUs
store.py      what was made before is not made again; tools.py: commands of this machine, ended with the lab
packages.py   Debian packages of another release than this machine's
root.py       the hosts' file system; kernel.py: a kernel and the initramfs that mounts it
parcel.py     the disk with the wheel, the tests and the steps, and what comes back on it
qemu.py, bochs.py   the emulators; emulator.py: a run of one, with limits
lab.py        one host from its parts to its line; progress.py: what is told meanwhile
selftests.py  the kernel's own selftests, built of its source; page.py: their results beside ours
expected.py   what is expected of a host; judge.py, junit.py: what came instead; draft.py: the start of a file
keep.py       what a host said, into the docs
inside/       what runs in a host beyond pyvmm; steps/: what it does, one after another
"""
