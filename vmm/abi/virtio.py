# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio as a driver and a device see it: virtio-mmio registers, feature and status bits, split rings, three devices.

Names and values are those of include/uapi/linux/virtio_{mmio,config,ring,ids,blk,console}.h; meanings: Virtual I/O
Device (VIRTIO) 1.2, OASIS: 2.1 status, 2.7 split virtqueues, 4.2 MMIO, 5.2 blk, 5.3 console, 5.4 entropy. `*_F_*` is a
bit's number, as in the headers. All structures are little endian. It knows no memory and no behaviour.
"""

from __future__ import annotations

from vmm.abi.structs import Field, Struct

# Which header holds a name, by its beginning.
HEADERS = {
    "VIRTIO_MMIO_": "linux/virtio_mmio.h",
    "VIRTIO_CONFIG_S_": "linux/virtio_config.h",
    "VIRTIO_F_": "linux/virtio_config.h",
    "VIRTIO_ID_": "linux/virtio_ids.h",
    "VIRTIO_RING_F_": "linux/virtio_ring.h",
    "VRING_": "linux/virtio_ring.h",
    "VIRTIO_BLK_": "linux/virtio_blk.h",
    "VIRTIO_CONSOLE_": "linux/virtio_console.h",
}

MAGIC = 0x74726976  # "virt"; the headers have no name for it
VERSION = 2  # of the register layout; 1 is the legacy one

# -- registers of virtio-mmio: byte offsets, 32 bits each (4.2.2); the configuration space takes any width
VIRTIO_MMIO_MAGIC_VALUE = 0x000
VIRTIO_MMIO_VERSION = 0x004
VIRTIO_MMIO_DEVICE_ID = 0x008
VIRTIO_MMIO_VENDOR_ID = 0x00C
VIRTIO_MMIO_DEVICE_FEATURES = 0x010
VIRTIO_MMIO_DEVICE_FEATURES_SEL = 0x014
VIRTIO_MMIO_DRIVER_FEATURES = 0x020
VIRTIO_MMIO_DRIVER_FEATURES_SEL = 0x024
VIRTIO_MMIO_QUEUE_SEL = 0x030
VIRTIO_MMIO_QUEUE_NUM_MAX = 0x034
VIRTIO_MMIO_QUEUE_NUM = 0x038
VIRTIO_MMIO_QUEUE_READY = 0x044
VIRTIO_MMIO_QUEUE_NOTIFY = 0x050
VIRTIO_MMIO_INTERRUPT_STATUS = 0x060
VIRTIO_MMIO_INTERRUPT_ACK = 0x064
VIRTIO_MMIO_STATUS = 0x070
VIRTIO_MMIO_QUEUE_DESC_LOW = 0x080
VIRTIO_MMIO_QUEUE_DESC_HIGH = 0x084
VIRTIO_MMIO_QUEUE_AVAIL_LOW = 0x090
VIRTIO_MMIO_QUEUE_AVAIL_HIGH = 0x094
VIRTIO_MMIO_QUEUE_USED_LOW = 0x0A0
VIRTIO_MMIO_QUEUE_USED_HIGH = 0x0A4
VIRTIO_MMIO_SHM_LEN_LOW = 0x0B0
VIRTIO_MMIO_SHM_LEN_HIGH = 0x0B4
VIRTIO_MMIO_SHM_BASE_LOW = 0x0B8
VIRTIO_MMIO_SHM_BASE_HIGH = 0x0BC
VIRTIO_MMIO_CONFIG_GENERATION = 0x0FC
VIRTIO_MMIO_CONFIG = 0x100

VIRTIO_MMIO_INT_VRING = 1  # the device used a buffer
VIRTIO_MMIO_INT_CONFIG = 2  # the configuration, or NEEDS_RESET, changed

# -- device status
VIRTIO_CONFIG_S_ACKNOWLEDGE = 0x01
VIRTIO_CONFIG_S_DRIVER = 0x02
VIRTIO_CONFIG_S_DRIVER_OK = 0x04
VIRTIO_CONFIG_S_FEATURES_OK = 0x08
VIRTIO_CONFIG_S_NEEDS_RESET = 0x40
VIRTIO_CONFIG_S_FAILED = 0x80

# -- features of every device
VIRTIO_RING_F_INDIRECT_DESC = 28
VIRTIO_RING_F_EVENT_IDX = 29
VIRTIO_F_VERSION_1 = 32
VIRTIO_F_RING_PACKED = 34  # not offered by any device here

# -- split rings (2.7)
VRING_DESC_F_NEXT = 1
VRING_DESC_F_WRITE = 2
VRING_DESC_F_INDIRECT = 4
VRING_AVAIL_F_NO_INTERRUPT = 1
VRING_USED_F_NO_NOTIFY = 1
VRING_DESC_ALIGN_SIZE = 16
VRING_AVAIL_ALIGN_SIZE = 2
VRING_USED_ALIGN_SIZE = 4
MAX_QUEUE_SIZE = 32768  # entries (2.7); the headers have no name for it

# -- devices
VIRTIO_ID_BLOCK = 2
VIRTIO_ID_CONSOLE = 3
VIRTIO_ID_RNG = 4

VIRTIO_BLK_F_SIZE_MAX = 1
VIRTIO_BLK_F_SEG_MAX = 2
VIRTIO_BLK_F_RO = 5
VIRTIO_BLK_F_BLK_SIZE = 6
VIRTIO_BLK_F_FLUSH = 9
VIRTIO_BLK_F_TOPOLOGY = 10
VIRTIO_BLK_F_CONFIG_WCE = 11
VIRTIO_BLK_F_DISCARD = 13
VIRTIO_BLK_F_WRITE_ZEROES = 14
VIRTIO_BLK_T_IN = 0
VIRTIO_BLK_T_OUT = 1
VIRTIO_BLK_T_FLUSH = 4
VIRTIO_BLK_T_GET_ID = 8
VIRTIO_BLK_T_DISCARD = 11
VIRTIO_BLK_T_WRITE_ZEROES = 13
VIRTIO_BLK_S_OK = 0
VIRTIO_BLK_S_IOERR = 1
VIRTIO_BLK_S_UNSUPP = 2
VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1
VIRTIO_BLK_ID_BYTES = 20
SECTOR = 512  # bytes; what capacity and sector count, whatever the block size (5.2.4)

VIRTIO_CONSOLE_F_SIZE = 0

VRING_DESC = Struct(
    "vring_desc", "VRING_DESC", 16, 16, (
        Field("addr", 0, 8, "guest-physical address"),
        Field("len", 8, 4, "bytes"),
        Field("flags", 12, 2, "VRING_DESC_F_*"),
        Field("next", 14, 2, "the descriptor that follows, with F_NEXT"),
    ),
)  # fmt: skip
VRING_AVAIL = Struct(
    "vring_avail", "VRING_AVAIL", 4, 2, (
        Field("flags", 0, 2, "VRING_AVAIL_F_*"),
        Field("idx", 2, 2, "where the driver puts the next head, modulo the size; it only grows"),
    ),
)  # fmt: skip
VRING_USED = Struct(
    "vring_used", "VRING_USED", 4, 4, (
        Field("flags", 0, 2, "VRING_USED_F_*"),
        Field("idx", 2, 2, "where the device puts the next element, modulo the size; it only grows"),
    ),
)  # fmt: skip
VRING_USED_ELEM = Struct(
    "vring_used_elem", "VRING_USED_ELEM", 8, 4, (
        Field("id", 0, 4, "head of the chain that was used"),
        Field("len", 4, 4, "bytes that the device wrote into it"),
    ),
)  # fmt: skip
BLK_OUTHDR = Struct(
    "virtio_blk_outhdr", "VIRTIO_BLK_OUTHDR", 16, 8, (
        Field("type", 0, 4, "VIRTIO_BLK_T_*"),
        Field("ioprio", 4, 4, "not used"),
        Field("sector", 8, 8, "of 512 bytes"),
    ),
)  # fmt: skip
BLK_CONFIG = Struct(  # of the kernel's structure, the part that this device fills
    "virtio_blk_config", "VIRTIO_BLK_CONFIG", 60, 8, (
        Field("capacity", 0, 8, "sectors of 512 bytes"),
        Field("size_max", 8, 4, "bytes in one segment, with F_SIZE_MAX"),
        Field("seg_max", 12, 4, "segments in one request, with F_SEG_MAX"),
        Field("blk_size", 20, 4, "bytes of a logical block, with F_BLK_SIZE"),
        Field("physical_block_exp", 24, 1, "a physical block has 2^n logical ones, with F_TOPOLOGY as the next three"),
        Field("alignment_offset", 25, 1, "logical blocks before the first aligned one"),
        Field("min_io_size", 26, 2, "logical blocks that should be written at least"),
        Field("opt_io_size", 28, 4, "logical blocks that are best written at once; 0: no matter"),
        Field("wce", 32, 1, "1: written data may wait for a flush; the driver sets it, with F_CONFIG_WCE"),
        Field("max_discard_sectors", 36, 4, "sectors in one segment of a discard, with F_DISCARD as the next two"),
        Field("max_discard_seg", 40, 4, "segments in one discard"),
        Field("discard_sector_alignment", 44, 4, "sectors that a discard should be aligned to"),
        Field("max_write_zeroes_sectors", 48, 4, "as for a discard, with F_WRITE_ZEROES as the next two"),
        Field("max_write_zeroes_seg", 52, 4, "segments in one request"),
        Field("write_zeroes_may_unmap", 56, 1, "1: zeroes with the unmap flag may give space back"),
    ),
)  # fmt: skip
BLK_DISCARD = Struct(
    "virtio_blk_discard_write_zeroes", "VIRTIO_BLK_DISCARD", 16, 8, (
        Field("sector", 0, 8, "the first, of 512 bytes"),
        Field("num_sectors", 8, 4, "how many"),
        Field("flags", 12, 4, "VIRTIO_BLK_WRITE_ZEROES_FLAG_*"),
    ),
)  # fmt: skip
CONSOLE_CONFIG = Struct(  # likewise
    "virtio_console_config", "VIRTIO_CONSOLE_CONFIG", 4, 2, (
        Field("cols", 0, 2, "with F_SIZE"),
        Field("rows", 2, 2, "with F_SIZE"),
    ),
)  # fmt: skip
STRUCTS = (VRING_DESC, VRING_AVAIL, VRING_USED, VRING_USED_ELEM, BLK_OUTHDR, BLK_CONFIG, BLK_DISCARD, CONSOLE_CONFIG)

RING = 4  # where ring[] begins in vring_avail and vring_used
EVENT = 2  # bytes behind ring[] with F_EVENT_IDX: used_event in vring_avail, avail_event in vring_used (2.7.6, 2.7.8)


def constants() -> dict[str, int]:
    """Every constant of this module that a kernel header holds, by its kernel name."""
    return {name: value for name, value in globals().items() if header_of(name)}


def header_of(name: str) -> str:
    """The header that holds a name; empty for a name that is ours."""
    return next((HEADERS[prefix] for prefix in HEADERS if name.startswith(prefix) and name not in _OURS), "")


_OURS = {struct.asm for struct in STRUCTS}  # names of the rows above


def asm_constants() -> dict[str, int]:
    """The kernel's names; `X_F_Y_MASK` (ours) is 1 << bit; fields and sizes as in vmm.abi.structs."""
    found = constants() | {"VIRTIO_MAGIC": MAGIC, "VRING_RING": RING}
    found |= {f"{name}_MASK": 1 << value for name, value in constants().items() if _is_bit(name)}
    for struct in STRUCTS:
        found[f"{struct.asm}_SIZE"] = struct.size
        found |= {f"{struct.asm}_{field.name}": field.offset for field in struct.fields}
    return found


def _is_bit(name: str) -> bool:
    """Feature bits are numbers in the headers; ring flags are masks there."""
    return "_F_" in name and not name.startswith("VRING_")


def feature(*bits: int) -> int:
    """A feature word with these bit numbers set."""
    return sum(1 << bit for bit in bits)
