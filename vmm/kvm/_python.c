/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the C core asks of CPython beside its plain API: to call a handler whose arguments lie ready, and whether the GIL
 * has to be given up at all. The rows pio_out to mmio_read, rdmsr_python and wrmsr_python of the bench show both.
 *
 * Every CPython so far exports these documented functions, and none of them belongs to the stable ABI of 3.11, for which
 * the wheel is named. So they are looked for as the module is loaded, and a Python that has one no more does without it:
 * its handlers are called by PyObject_Call, and the GIL is given up at each exit.
 */
#include <dlfcn.h>

#ifdef __GLIBC__ /* dlsym moved to another library in 2.34; by its old version a wheel also runs with what is older */
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
#endif

typedef PyObject *(*vmm_enter)(PyObject *call, PyObject *const *arguments, size_t count, PyObject *names);

static struct {
    vmm_enter vectorcall;
    vmm_enter (*function)(PyObject *call);
    void *(*head)(void);
    void *(*next)(void *interpreter);
    PyThreadState *(*threads)(void *interpreter);
    PyThreadState *(*next_thread)(PyThreadState *thread);
} beside_abi3;

__attribute__((constructor)) static void look_beside_abi3(void)
{
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"PyObject_Vectorcall", &beside_abi3.vectorcall},
        {"PyVectorcall_Function", &beside_abi3.function},
        {"PyInterpreterState_Head", &beside_abi3.head},
        {"PyInterpreterState_Next", &beside_abi3.next},
        {"PyInterpreterState_ThreadHead", &beside_abi3.threads},
        {"PyThreadState_Next", &beside_abi3.next_thread},
    };

    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(RTLD_DEFAULT, wanted[i].name);

        memcpy(wanted[i].place, &found, sizeof found);
    }
}

#ifndef PY_VECTORCALL_ARGUMENTS_OFFSET
#define PY_VECTORCALL_ARGUMENTS_OFFSET ((size_t)1 << (8 * sizeof(size_t) - 1))
#endif

/* A call as the stable ABI of 3.11 has it. */
static PyObject *by_tuple(PyObject *call, PyObject *const *arguments, size_t count, PyObject *names)
{
    Py_ssize_t size = (Py_ssize_t)(count & ~PY_VECTORCALL_ARGUMENTS_OFFSET);
    PyObject *tuple = PyTuple_New(size), *result;

    (void)names; /* nobody here gives any */
    if (!tuple)
        return NULL;
    for (Py_ssize_t i = 0; i < size; i++) {
        Py_INCREF(arguments[i]);
        PyTuple_SetItem(tuple, i, arguments[i]);
    }
    result = PyObject_Call(call, tuple, NULL);
    Py_DECREF(tuple);
    return result;
}

/* A handler with what it is called with, taken apart once: a bound method is its function and `self`, and the arguments
 * of a device's claim stand before those of the exit. So a call makes no tuple and goes through nobody. */
#define VMM_FIXED 4 /* of a bound method and a claim: self, offset, size; one to spare */
#define VMM_GIVEN 6 /* of a hypercall */
struct vmm_call {
    PyObject *row; /* the tuple that all below lie in: whoever holds it holds them */
    PyObject *function;
    vmm_enter enter; /* its own, or PyObject_Vectorcall for what is called otherwise */
    size_t fixed;
    PyObject *arguments[1 + VMM_FIXED + VMM_GIVEN]; /* [0] is the callee's, who may need a place before the first */
};

/* Take `row` apart: (what it is called in messages, function, fixed arguments...). 0: it is no such row. */
static int taken_apart(struct vmm_call *call, PyObject *row)
{
    Py_ssize_t size = PyTuple_Check(row) ? PyTuple_Size(row) : 0;

    if (size < 2 || size > 2 + VMM_FIXED)
        return 0;
    call->row = row;
    call->function = PyTuple_GetItem(row, 1);
    call->enter = beside_abi3.function ? beside_abi3.function(call->function) : NULL;
    if (!call->enter)
        call->enter = beside_abi3.vectorcall ? beside_abi3.vectorcall : by_tuple;
    call->fixed = (size_t)size - 2;
    for (Py_ssize_t i = 2; i < size; i++)
        call->arguments[1 + i - 2] = PyTuple_GetItem(row, i);
    return 1;
}

/* Where the exit's own arguments go. */
static PyObject **given(struct vmm_call *call)
{
    return &call->arguments[1 + call->fixed];
}

/* What the handler returns to its fixed and `count` given arguments, or NULL. */
static PyObject *called(struct vmm_call *call, size_t count)
{
    return call->enter(call->function, &call->arguments[1], (call->fixed + count) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* Nobody else can want the GIL: the thread that asks is all that the only interpreter has. To give up the GIL and to take
 * it again would be a third of an exit's instructions here. A thread of Python's that is started from now on is started
 * by a handler of this one, and found at its return; one that C made comes by PyGILState_Ensure, and gets the GIL after
 * the next exit or heartbeat (vmm/machine/run/all_cpus.py). */
static int alone(void *only, PyThreadState *me)
{
    return beside_abi3.threads(only) == me && !beside_abi3.next_thread(me);
}

/* The only interpreter; NULL where there are several, with threads of their own, or where that cannot be asked. */
static void *only_interpreter(void)
{
    void *first;

    if (!beside_abi3.head || !beside_abi3.next || !beside_abi3.threads || !beside_abi3.next_thread)
        return NULL;
    first = beside_abi3.head();
    return beside_abi3.next(first) ? NULL : first;
}

/* A handler mostly takes less time than it takes to sleep for the GIL and to be woken: who finds the thread of another vCPU
 * in one waits for its end awake, for a microsecond or two at most. The row pio_out_by_two of the bench shows it. */
#define VMM_AWAKE 64 /* looks */
static int in_handler; /* the thread of a vCPU has the GIL; a hint, and no lock */

static void let_go(void)
{
    __atomic_store_n(&in_handler, 0, __ATOMIC_RELAXED);
    PyEval_SaveThread();
}

static void take_again(PyThreadState *me)
{
#ifndef Py_GIL_DISABLED
    for (int i = 0; RARELY(__atomic_load_n(&in_handler, __ATOMIC_RELAXED)) && i < VMM_AWAKE; i++)
        __builtin_ia32_pause();
#endif
    PyEval_RestoreThread(me);
    __atomic_store_n(&in_handler, 1, __ATOMIC_RELAXED);
}
