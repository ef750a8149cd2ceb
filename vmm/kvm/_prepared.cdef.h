/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of prepared guests (_prepared.c).
 */
int vmm_unchanged(const char *paths, const void *states, __u64 size);
int vmm_prepared_run(const struct vmm_prepared *one, const void *image, const void *offer, const void *mask,
                     const void *cpuid, const void *sregs, const void *regs, struct vmm_ended *end);
