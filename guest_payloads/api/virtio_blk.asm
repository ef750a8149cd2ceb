; summary: virtio-blk: a disk is read, written, flushed, cleared; what it cannot do is a status, not a crash
; proves:  virtio_blk
; needs:   KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD
; machine: irqchip=split timeout=30
; param:   features = 0x100006206   what the driver accepts: VERSION_1, WRITE_ZEROES, DISCARD, FLUSH, SEG_MAX, SIZE_MAX
; result:  id       u32    of the device: 2, block
; result:  offered  u64    the features that the device offers
; result:  status   u32    after the driver said FEATURES_OK: 0xb, the device agrees
; result:  capacity u64    of the disk, in sectors of 512 bytes
; result:  read     u8     status of reading sector 1: 0, VIRTIO_BLK_S_OK
; result:  length   u64    bytes that the device wrote for it: 513, the sector and the status
; result:  woken    u64    interrupts for it: 1
; result:  write    u8     status of writing sectors 2 and 3: 0
; result:  flush    u8     status of the flush behind it: 0
; result:  quiet    u64    interrupts that came for these two, with callbacks off: 0
; result:  name     u8     status of asking for the disk's name: 0
; result:  beyond   u8     status of reading behind the last sector: 1, VIRTIO_BLK_S_IOERR
; result:  unknown  u8     status of a request that does not exist: 2, VIRTIO_BLK_S_UNSUPP
; result:  discard  u8     status of giving back sectors 4 and 5: 0
; result:  zeroes   u8     status of zeroing sector 6, whose space may be given back: 0
; result:  misused  u8     status of a discard with the flag that is for zeroes alone: 2, VIRTIO_BLK_S_UNSUPP
; result:  status_end u32  the device's status at the end: 0xf, and no NEEDS_RESET
;
; A request is a chain of three: a header that the device reads, the data, and one byte that the device writes last, the
; status. A flush has no data. The host half adds the device over a file, and looks into that file afterwards.

%include "results.inc"
%include "apic.inc"

QUEUE  = DATA_BASE
READ   = DATA_BASE + 0x1000               ; sector 1 comes here; the host half looks
WRITE  = DATA_BASE + 0x1400               ; two sectors of 0xa5 go to the disk
NAME   = DATA_BASE + 0x1800
RANGE  = DATA_BASE + 0x1900               ; of a request for zeroes, or a discard
BLOCKS = DATA_BASE + 0x2000               ; one block of 0x100 bytes for each request: header, status, list of buffers
BLOCK_STATUS = 0x10
BLOCK_LIST   = 0x20

; add a request to the queue, with the data at `data`; no kick
.macro REQUEST block, type, sector, data, size, flags
    mov   r9d, BLOCKS + \block * 0x100
    mov   dword ptr [r9 + VIRTIO_BLK_OUTHDR_type], \type
    mov   rax, \sector
    mov   qword ptr [r9 + VIRTIO_BLK_OUTHDR_sector], rax
    mov   r10d, \data
    mov   r11d, \size
    mov   r14d, \flags
    call  request
.endm

; the same without data to write but a range of sectors
.macro CLEAR block, type, sector, sectors, flags
    mov   dword ptr [RANGE + VIRTIO_BLK_DISCARD_sector], \sector
    mov   dword ptr [RANGE + VIRTIO_BLK_DISCARD_num_sectors], \sectors
    mov   dword ptr [RANGE + VIRTIO_BLK_DISCARD_flags], \flags
    REQUEST \block, \type, 0, RANGE, VIRTIO_BLK_DISCARD_SIZE, 0
    call  vq_kick
    call  vq_wait
.endm

.macro STATUS block, name
    movzx eax, byte ptr [BLOCKS + \block * 0x100 + BLOCK_STATUS]
    RESULT \name
.endm

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   ebx, QUEUE
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_DEVICE_ID]
    RESULT id
    call  virtio_offered
    RESULT offered
    mov   rax, PARAM_features
    call  virtio_init
    RESULT status
    test  eax, VIRTIO_CONFIG_S_FEATURES_OK
    jz    refused
    xor   eax, eax
    call  virtio_queue
    call  virtio_irq
    call  virtio_ready

capacity:                                                  ; 64 bits in two reads: the generation says if they belong
    mov   ecx, dword ptr [r12 + VIRTIO_MMIO_CONFIG_GENERATION]    ; together
    mov   r13d, dword ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_BLK_CONFIG_capacity + 4]
    shl   r13, 32
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_BLK_CONFIG_capacity]
    or    r13, rax
    cmp   ecx, dword ptr [r12 + VIRTIO_MMIO_CONFIG_GENERATION]
    jne   capacity
    mov   rax, r13
    RESULT capacity

    ; one request, and sleep until it is done
    REQUEST 0, VIRTIO_BLK_T_IN, 1, READ, 512, VRING_DESC_F_WRITE
    call  vq_kick
    call  vq_wait
    mov   eax, ecx
    RESULT length
    STATUS 0, read
woken:                                                     ; polling may have been faster than the interrupt
    mov   rax, qword ptr [rip + virtio_interrupts]
    test  rax, rax
    jz    woken
    RESULT woken

    ; two requests, one kick, callbacks off until both are done
    mov   edi, WRITE
    mov   eax, 0xa5
    mov   ecx, 1024
    rep   stosb
    call  vq_disable
    REQUEST 1, VIRTIO_BLK_T_OUT, 2, WRITE, 1024, 0
    REQUEST 2, VIRTIO_BLK_T_FLUSH, 0, 0, 0, 0
    call  vq_kick
    call  poll
    call  poll
    STATUS 1, write
    STATUS 2, flush
    mov   rax, qword ptr [rip + virtio_interrupts]
    dec   rax
    RESULT quiet
    call  vq_enable                                        ; nothing is in flight: it says 0. The device may look at
                                                           ; the flag only now, and interrupt for these two after all

    ; and what is not a plain read or write
    REQUEST 3, VIRTIO_BLK_T_GET_ID, 0, NAME, VIRTIO_BLK_ID_BYTES, VRING_DESC_F_WRITE
    call  vq_kick
    call  vq_wait
    STATUS 3, name
    REQUEST 4, VIRTIO_BLK_T_IN, r13, READ + 0x200, 512, VRING_DESC_F_WRITE
    call  vq_kick
    call  vq_wait
    STATUS 4, beyond
    REQUEST 5, 0x77, 0, READ + 0x200, 512, VRING_DESC_F_WRITE
    call  vq_kick
    call  vq_wait
    STATUS 5, unknown
    CLEAR 6, VIRTIO_BLK_T_DISCARD, 4, 2, 0
    STATUS 6, discard
    CLEAR 7, VIRTIO_BLK_T_WRITE_ZEROES, 6, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
    STATUS 7, zeroes
    CLEAR 8, VIRTIO_BLK_T_DISCARD, 7, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
    STATUS 8, misused
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_STATUS]
    RESULT status_end
refused:
    PASS

poll:
    pause
    call  vq_get
    cmp   rax, -1
    je    poll
    ret

; R9 = block with its header filled in, R10 = data, R11 = its size (0: none), R14 = its flags
request:
    mov   byte ptr [r9 + BLOCK_STATUS], 0xff               ; no status yet
    lea   rsi, [r9 + BLOCK_LIST]
    mov   qword ptr [rsi], r9
    mov   dword ptr [rsi + 8], VIRTIO_BLK_OUTHDR_SIZE
    mov   dword ptr [rsi + 12], 0
    lea   rdx, [rsi + 16]
    mov   ecx, 2
    test  r11d, r11d
    jz    request_status
    mov   qword ptr [rdx], r10
    mov   dword ptr [rdx + 8], r11d
    mov   dword ptr [rdx + 12], r14d
    add   rdx, 16
    inc   ecx
request_status:
    lea   rax, [r9 + BLOCK_STATUS]
    mov   qword ptr [rdx], rax
    mov   dword ptr [rdx + 8], 1
    mov   dword ptr [rdx + 12], VRING_DESC_F_WRITE
    jmp   vq_add

%include "idt.inc"
%include "virtio.inc"
