# SPDX-License-Identifier: GPL-2.0-or-later
"""First lessons: output, ports, MMIO, CPUID, MSRs, privilege, paging, faults, several vCPUs, and ways to go wrong."""
