# SPDX-License-Identifier: GPL-2.0-or-later
"""Tap devices, as /dev/net/tun gives them: ioctls, flags, offloads.

Names and values are those of include/uapi/linux/if_tun.h and if.h; meanings: Documentation/networking/tuntap.rst. It
knows no behaviour.
"""

from __future__ import annotations

HEADERS = {"TUN": "linux/if_tun.h", "IFF_": "linux/if_tun.h", "IFNAMSIZ": "linux/if.h"}

TUN_DEVICE = "/dev/net/tun"
IFREQ_SIZE = 40  # bytes of struct ifreq on 64 bits: a name, then a union
IFNAMSIZ = 16

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNGETIFF = 0x800454D2
TUNSETVNETHDRSZ = 0x400454D8

IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_MULTI_QUEUE = 0x0100

TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08


def constants() -> dict[str, int]:
    """Every constant of this module that a kernel header holds, by its kernel name."""
    return {name: value for name, value in globals().items() if header_of(name)}


def header_of(name: str) -> str:
    """The header that holds a name; empty for a name that is ours."""
    if name == "TUN_DEVICE":
        return ""
    return next((HEADERS[prefix] for prefix in HEADERS if name.startswith(prefix)), "")
