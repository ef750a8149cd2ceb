// summary: NAME says hello, adds up, and counts an interrupt
// result: sum    u64   the numbers from 1 to 100: 5050
// result: traps  u64   how often its own handler ran: 1
// param:  last = 100   the last number that is added
//
// pyvmm run NAME.c
// pyvmm run NAME.c --param last=10 --trace
//
// pyvmm.h says what there is. A file NAME.py beside this one with `def check(guest)` compares results on the host.

#include <pyvmm.h>

static volatile int traps;

INTERRUPT void undefined(struct interrupt_frame *frame)
{
    traps++;
    frame->rip += 2; /* UD2 has two bytes */
}

int main(int cpu, int cpus)
{
    printf("hello from NAME, vCPU %d of %d\n", cpu, cpus);

    uint64_t sum = 0;
    for (uint64_t i = 1; i <= PARAM_last; i++)
        sum += i;
    RESULT(sum, sum);

    set_gate(UD_VECTOR, undefined);
    __asm__ volatile("ud2");
    RESULT(traps, traps);
    CHECK(traps == 1);

    return PASS;
}
