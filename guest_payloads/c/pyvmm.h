/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a guest in C has of pyvmm: console, results, the end of the run, ports, MMIO, MSRs, CPUID, interrupts, hypercalls.
 *
 *     #include <pyvmm.h>
 *     int main(int cpu, int cpus) { printf("vCPU %d of %d\n", cpu, cpus); return PASS; }
 *
 * There is no C library: what is here, is all. Freestanding headers of the compiler (stdint.h, ...) are included. Names
 * are the kernel's where it has them (outb(value, port), readl, rdmsr). Every constant that pyvmm's assembler knows is a
 * macro of the same name: MSR_KVM_STEAL_TIME, KVM_HC_KICK_CPU, DATA_BASE, STEAL_TIME_preempted; `pyvmm explain` has them.
 */
#ifndef PYVMM_H
#define PYVMM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pyvmm_facts.h> /* made of pyvmm's tables at each compilation; also R_name of results and PARAM_name */

/* -- the end of the run: what main returns, or any of these from anywhere */

enum { PASS = EXIT_PASS, FAIL = EXIT_FAIL, SKIP = EXIT_SKIP };

/* End the run with PASS, FAIL, SKIP, or another number, a failure as well; its lowest eight bits are told, or 0xff. */
_Noreturn void end_run(int status);

/* A failure with its place, if the condition does not hold. */
#define CHECK(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))
_Noreturn void check_failed(const char *condition, const char *file, int line);

/* -- results: `// result: name u64  what must hold` at the top of the file, and RESULT(name, value) */

#define RESULT(name, value) store_result(R_##name, (uint64_t)(value))
static inline void store_result(uint64_t offset, uint64_t value)
{
    *(volatile uint64_t *)(RESULTS_BASE + offset) = value;
    *(volatile uint8_t *)(RESULTS_BASE + offset + 8) = 1; /* an absent result is not a zero */
}

/* -- ports */

static inline void outb(uint8_t value, uint16_t port) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
static inline void outw(uint16_t value, uint16_t port) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
static inline void outl(uint32_t value, uint16_t port) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory"); }

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* -- MMIO: one plain MOV each, which is what KVM's emulator and every trace show */

#define PYVMM_MMIO(letter, type, suffix)                                                                  \
    static inline type read##letter(uint64_t address)                                                     \
    {                                                                                                      \
        type value;                                                                                        \
        __asm__ volatile("mov" suffix " %1, %0" : "=r"(value) : "m"(*(volatile type *)address) : "memory"); \
        return value;                                                                                      \
    }                                                                                                      \
    static inline void write##letter(type value, uint64_t address)                                        \
    {                                                                                                      \
        __asm__ volatile("mov" suffix " %0, %1" : : "r"(value), "m"(*(volatile type *)address) : "memory"); \
    }
PYVMM_MMIO(b, uint8_t, "b")
PYVMM_MMIO(w, uint16_t, "w")
PYVMM_MMIO(l, uint32_t, "l")
PYVMM_MMIO(q, uint64_t, "q")
#undef PYVMM_MMIO

/* -- MSRs, CPUID, the time stamp, control registers */

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid c;
    __asm__ volatile("cpuid" : "=a"(c.eax), "=b"(c.ebx), "=c"(c.ecx), "=d"(c.edx) : "a"(leaf), "c"(subleaf));
    return c;
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

#define PYVMM_CONTROL(n)                                                                                      \
    static inline uint64_t read_cr##n(void)                                                                   \
    {                                                                                                          \
        uint64_t value;                                                                                        \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                                     \
        return value;                                                                                          \
    }                                                                                                          \
    static inline void write_cr##n(uint64_t value) { __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory"); }
PYVMM_CONTROL(0)
PYVMM_CONTROL(2)
PYVMM_CONTROL(3)
PYVMM_CONTROL(4)
#undef PYVMM_CONTROL

static inline void invlpg(const void *address) { __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory"); }

static inline void cpu_relax(void) { __asm__ volatile("pause" : : : "memory"); }

/* -- interrupts */

static inline void irq_enable(void) { __asm__ volatile("sti" : : : "memory"); }
static inline void irq_disable(void) { __asm__ volatile("cli" : : : "memory"); }

/* Sleep until an interrupt, without the gap between the two: STI takes effect after the instruction behind it. */
static inline void safe_halt(void) { __asm__ volatile("sti; hlt" : : : "memory"); }
static inline void halt(void) { __asm__ volatile("hlt" : : : "memory"); }

/* What a handler finds. Write it as
 *     INTERRUPT void tick(struct interrupt_frame *frame) { ticks++; x2apic_eoi(); }
 *     INTERRUPT void gp(struct interrupt_frame *frame, uint64_t error) { frame->rip += 2; }
 * and call set_gate(vector, tick). Vectors without a handler of yours end the run with a report. */
struct interrupt_frame {
    uint64_t rip, cs, rflags, rsp, ss;
};
#define INTERRUPT __attribute__((interrupt))

void set_gate(int vector, const void *handler);

/* The local APIC in x2APIC mode; the machine needs one: `// needs: irqchip`. */
static inline void x2apic_enable(void)
{
    wrmsr(MSR_IA32_APICBASE, rdmsr(MSR_IA32_APICBASE) | 0xc00); /* x2APIC mode and global enable */
    wrmsr(X2APIC_SPIV, 0x1ff);                                  /* software enable, spurious vector 0xff */
}

static inline void x2apic_eoi(void) { wrmsr(X2APIC_EOI, 0); }

/* Write the ICR: the destination's APIC id, and vector | delivery mode. */
static inline void x2apic_send(uint32_t destination, uint32_t low) { wrmsr(X2APIC_ICR, (uint64_t)destination << 32 | low); }

/* -- KVM's hypercalls: the result is what KVM returns, a negative KVM_E... on failure. Takes vector 6 (#UD). */

long kvm_hypercall(long number, long a0, long a1, long a2, long a3);

/* -- console and memory (runtime.c) */

int putchar(int c);
int puts(const char *text); /* and a newline */
/* %d %i %u %x %X %o %c %s %p %%, with l, ll, z, h, hh; flags - 0 # + and space, width, and precision of strings. */
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int vprintf(const char *format, va_list arguments);

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);

#endif
