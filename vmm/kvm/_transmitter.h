/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A serial port that sends under THRE's interrupt, while the C core serves it: what it shares with Python.
 */
#define VMM_UART_IIR 2
#define VMM_UART_LSR 5      /* these registers of it */
#define VMM_UART_READY 0x60 /* and what LSR reads: UART_LSR_THRE | UART_LSR_TEMT */
#define VMM_UART_SIZE 8     /* ports; its first is a multiple of that */

/* Lent by Python, which takes it back before it looks at the device. `fd` is the VM's, or -1 where no line is driven. */
struct vmm_transmitter {
    __u32 port; /* its first, or VMM_NO_PORT: Python has it */
    __u8 lock;
    __u8 event, level; /* THRE's interrupt is pending; the line is up */
    __u8 pending, idle; /* IIR with the first and without */
    int fd;
    __u32 gsi;
};
