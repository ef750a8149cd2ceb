# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-net as a driver and a device see it: feature bits, the header before each frame, commands.

Names and values are those of include/uapi/linux/virtio_net.h and virtio_ids.h; meanings: Virtual I/O Device (VIRTIO)
1.2, OASIS, 5.1. `*_F_*` without HDR is a bit's number, as in the header. All is little endian. It knows no behaviour.
"""

from __future__ import annotations

from vmm.abi.structs import Field, Struct

HEADERS = {"VIRTIO_NET_": "linux/virtio_net.h", "VIRTIO_ID_": "linux/virtio_ids.h"}

VIRTIO_ID_NET = 1

VIRTIO_NET_F_CSUM = 0  # the device takes frames whose checksum is not done
VIRTIO_NET_F_GUEST_CSUM = 1  # and so does the driver
VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2
VIRTIO_NET_F_MTU = 3
VIRTIO_NET_F_MAC = 5
VIRTIO_NET_F_GUEST_TSO4 = 7
VIRTIO_NET_F_GUEST_TSO6 = 8
VIRTIO_NET_F_GUEST_ECN = 9
VIRTIO_NET_F_HOST_TSO4 = 11
VIRTIO_NET_F_HOST_TSO6 = 12
VIRTIO_NET_F_HOST_ECN = 13
VIRTIO_NET_F_MRG_RXBUF = 15
VIRTIO_NET_F_STATUS = 16
VIRTIO_NET_F_CTRL_VQ = 17
VIRTIO_NET_F_CTRL_RX = 18
VIRTIO_NET_F_CTRL_RX_EXTRA = 20
VIRTIO_NET_F_GUEST_ANNOUNCE = 21
VIRTIO_NET_F_MQ = 22
VIRTIO_NET_F_CTRL_MAC_ADDR = 23

VIRTIO_NET_S_LINK_UP = 1
VIRTIO_NET_S_ANNOUNCE = 2

# -- the header before each frame (5.1.6)
VIRTIO_NET_HDR_F_NEEDS_CSUM = 1
VIRTIO_NET_HDR_F_DATA_VALID = 2
VIRTIO_NET_HDR_GSO_NONE = 0
VIRTIO_NET_HDR_GSO_TCPV4 = 1
VIRTIO_NET_HDR_GSO_TCPV6 = 4
VIRTIO_NET_HDR_GSO_ECN = 0x80

# -- the control queue (5.1.6.5): class, command, data, then one byte of answer
VIRTIO_NET_OK = 0
VIRTIO_NET_ERR = 1
VIRTIO_NET_CTRL_RX = 0
VIRTIO_NET_CTRL_RX_PROMISC = 0
VIRTIO_NET_CTRL_RX_ALLMULTI = 1
VIRTIO_NET_CTRL_RX_ALLUNI = 2
VIRTIO_NET_CTRL_RX_NOMULTI = 3
VIRTIO_NET_CTRL_RX_NOUNI = 4
VIRTIO_NET_CTRL_RX_NOBCAST = 5
VIRTIO_NET_CTRL_MAC = 1
VIRTIO_NET_CTRL_MAC_TABLE_SET = 0
VIRTIO_NET_CTRL_MAC_ADDR_SET = 1
VIRTIO_NET_CTRL_ANNOUNCE = 3
VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0
VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5
VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0

NET_HDR = Struct(
    "virtio_net_hdr_v1", "VIRTIO_NET_HDR", 12, 2, (
        Field("flags", 0, 1, "VIRTIO_NET_HDR_F_*"),
        Field("gso_type", 1, 1, "VIRTIO_NET_HDR_GSO_*"),
        Field("hdr_len", 2, 2, "bytes of the headers that each segment repeats; a hint"),
        Field("gso_size", 4, 2, "bytes of payload in one segment"),
        Field("csum_start", 6, 2, "with NEEDS_CSUM: sum from here to the end"),
        Field("csum_offset", 8, 2, "and put the sum so far behind csum_start"),
        Field("num_buffers", 10, 2, "chains that the frame was received into; to be 0 in what is sent"),
    ),
)  # fmt: skip
NET_CONFIG = Struct(  # of the kernel's structure, the part that this device fills
    "virtio_net_config", "VIRTIO_NET_CONFIG", 12, 2, (
        Field("mac", 0, 6, "with F_MAC"),
        Field("status", 6, 2, "VIRTIO_NET_S_*, with F_STATUS"),
        Field("max_virtqueue_pairs", 8, 2, "with F_MQ"),
        Field("mtu", 10, 2, "bytes above the link layer, with F_MTU"),
    ),
)  # fmt: skip
CTRL_HDR = Struct(
    "virtio_net_ctrl_hdr", "VIRTIO_NET_CTRL_HDR", 2, 1, (
        Field("class", 0, 1, "VIRTIO_NET_CTRL_*"),
        Field("cmd", 1, 1, "VIRTIO_NET_CTRL_*_*"),
    ),
)  # fmt: skip
STRUCTS = (NET_HDR, NET_CONFIG, CTRL_HDR)
_OURS = {struct.asm for struct in STRUCTS}

# -- Ethernet (IEEE 802.3): the headers have names of their own in linux/if_ether.h
ETH_ALEN = 6
ETH_HLEN = 14
VLAN_HLEN = 4
MIN_MTU = 68  # RFC 791: what each link must carry
MAX_MTU = 65535


def constants() -> dict[str, int]:
    """Every constant of this module that a kernel header holds, by its kernel name."""
    return {name: value for name, value in globals().items() if header_of(name)}


def header_of(name: str) -> str:
    """The header that holds a name; empty for a name that is ours."""
    return next((HEADERS[prefix] for prefix in HEADERS if name.startswith(prefix) and name not in _OURS), "")


def asm_constants() -> dict[str, int]:
    """The kernel's names; `VIRTIO_NET_F_X_MASK` (ours) is 1 << bit; fields and sizes as in vmm.abi.structs."""
    found = constants()
    found |= {f"{name}_MASK": 1 << value for name, value in found.items() if name.startswith("VIRTIO_NET_F_")}
    for struct in STRUCTS:
        found[f"{struct.asm}_SIZE"] = struct.size
        found |= {f"{struct.asm}_{field.name}": field.offset for field in struct.fields}
    return found
