/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the C core asks of CPython beside its plain API: to call a handler whose arguments lie ready, and whether the GIL
 * has to be given up at all. The rows pio_out to mmio_read, rdmsr_python and wrmsr_python of the bench show both.
 *
 * The limited API of the compiler's header hides these functions; every CPython from 3.11 on exports them, under these
 * names and with these arguments. Those of vectorcalls belong to the stable ABI since 3.12.
 */
#ifdef Py_LIMITED_API
typedef struct _is PyInterpreterState_; /* the header's name for it differs from one Python to the next */
extern PyObject *PyObject_Vectorcall(PyObject *call, PyObject *const *arguments, size_t count, PyObject *names);
typedef PyObject *(*vectorcallfunc)(PyObject *call, PyObject *const *arguments, size_t count, PyObject *names);
extern vectorcallfunc PyVectorcall_Function(PyObject *call);
extern PyInterpreterState_ *PyInterpreterState_Head(void);
extern PyInterpreterState_ *PyInterpreterState_Next(PyInterpreterState_ *interpreter);
extern PyThreadState *PyInterpreterState_ThreadHead(PyInterpreterState_ *interpreter);
extern PyThreadState *PyThreadState_Next(PyThreadState *thread);
#define PyInterpreterState PyInterpreterState_
#ifndef PY_VECTORCALL_ARGUMENTS_OFFSET
#define PY_VECTORCALL_ARGUMENTS_OFFSET ((size_t)1 << (8 * sizeof(size_t) - 1))
#endif
#endif

/* A handler with what it is called with, taken apart once: a bound method is its function and `self`, and the arguments
 * of a device's claim stand before those of the exit. So a call makes no tuple and goes through nobody. */
#define VMM_FIXED 4 /* of a bound method and a claim: self, offset, size; one to spare */
#define VMM_GIVEN 6 /* of a hypercall */
struct vmm_call {
    PyObject *row; /* the tuple that all below lie in: whoever holds it holds them */
    PyObject *function;
    vectorcallfunc enter; /* its own, or PyObject_Vectorcall for what is called otherwise */
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
    call->enter = PyVectorcall_Function(call->function);
    if (!call->enter)
        call->enter = PyObject_Vectorcall;
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
static int alone(PyInterpreterState *only, PyThreadState *me)
{
    return PyInterpreterState_ThreadHead(only) == me && !PyThreadState_Next(me);
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
