# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices a guest can talk to: one module each, no KVM in any. None knows its address; `vmm.machine.bus.bus` hands it
offsets. What a device wants of the machine (an interrupt line, the end of the run) is a callback that it is built with.
"""
