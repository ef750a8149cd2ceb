/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of prepared guests (_prepared.c) share; it is the cdef too.
 */
#define VMM_OFFERED 128 /* entries of KVM_GET_SUPPORTED_CPUID; KVM has fewer than half of them today */

/* Bytes of memory, of its image and of its CPUID; ns until it is given up; the key and the value of the exit that it is
 * to end by; the console's port, and how many bytes that takes (VMM_STAGING at most). */
struct vmm_prepared {
    __u64 memory, image_size, cpuid_size, patience;
    long long exit_key;
    __u64 passed;
    __u32 console, room;
};

/* How it went: ns, exits, and what it printed. */
struct vmm_ended { __u64 ns, exits; __u32 length; __u8 output[VMM_STAGING]; };
