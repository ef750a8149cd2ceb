/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Page faults of a userfaultfd, from the wait to the handler's call: the thread that serves them waits without the GIL,
 * and takes it for the handler alone. The row page_fault_uffd of the bench shows it: what slept comes back to cold
 * caches, and each line of Python between the fault and its page would be paid at that price.
 */
#include <poll.h>

/* Put pages there and wake who waits: 0, or -errno. EAGAIN says that the mappings were changing, or that a part is done,
 * which is counted by then; so it is asked again. DATA is NULL for zeros. */
int vmm_supply(int fd, __u64 address, const void *data, __u64 size, __u64 mode)
{
    __u64 done = 0;

    while (done < size) {
        struct uffdio_copy copy = {address + done, (uintptr_t)data + done, size - done, mode, 0};
        struct uffdio_zeropage zero = {{address + done, size - done}, mode, 0};
        int result = data ? ioctl(fd, UFFDIO_COPY, &copy) : ioctl(fd, UFFDIO_ZEROPAGE, &zero);
        __s64 part = data ? copy.copy : zero.zeropage;

        if (result < 0 && errno != EAGAIN)
            return -errno;
        if (part > 0)
            done += (__u64)part;
    }
    return 0;
}

/* The next fault: 1; 0: END can be read; else -errno. It waits. */
static int next_fault(int fd, int end, __u64 *address, __u64 *flags)
{
    struct pollfd both[2] = {{end, POLLIN, 0}, {fd, POLLIN, 0}};

    for (;;) {
        int result = poll(both, 2, -1);

        if (result < 0 && errno != EINTR)
            return -errno;
        if (result <= 0)
            continue;
        if (both[0].revents)
            return 0;
        result = vmm_userfaultfd_read(fd, address, flags);
        if (result > 0 || (result < 0 && result != -EAGAIN && result != -EINTR))
            return result;
    }
}

/* A `kind` (a tuple of two by type) of one fault. */
static PyObject *fault_of(void *kind, __u64 address, __u64 flags)
{
    PyObject *fault = PyType_GenericAlloc(kind, 2);
    PyObject *number = fault ? PyLong_FromUnsignedLongLong(address & -(__u64)4096) : NULL;

    if (number) {
        PyTuple_SetItem(fault, 0, number);
        PyTuple_SetItem(fault, 1, PyBool_FromLong(flags & UFFD_PAGEFAULT_FLAG_WRITE ? 1 : 0));
        return fault;
    }
    Py_XDECREF(fault);
    return NULL;
}

/* Serve every fault of the descriptor *FD (-1: it has been closed) until END can be read: 0; or what WHO refers to, a weak
 * reference to who has `_serve`, is gone: 0; or a handler raised, which is in `told`: VMM_RAISED; or -errno. While it waits
 * it holds nobody. */
long long vmm_serve_faults(const int *fd, int end, void *who, void *kind, void *told)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *name = PyUnicode_InternFromString("_serve");
    long long code = 0;

    while (name && !code) {
        PyObject *fault, *holder, *serve, *result;
        __u64 address = 0, flags = 0;
        int number = *fd;
        PyThreadState *me = PyEval_SaveThread();

        code = number < 0 ? -EBADF : next_fault(number, end, &address, &flags);
        PyEval_RestoreThread(me);
        if (code <= 0)
            break;
        code = 0;
        holder = PyObject_CallFunctionObjArgs(who, NULL);
        if (holder == Py_None) {
            Py_DECREF(holder);
            break;
        }
        serve = holder ? PyObject_GetAttr(holder, name) : NULL;
        fault = serve ? fault_of(kind, address, flags) : NULL;
        result = fault ? PyObject_CallFunctionObjArgs(serve, fault, NULL) : NULL;
        Py_XDECREF(fault);
        Py_XDECREF(serve);
        if (result)
            Py_DECREF(result);
        else
            code = raised(told);
        Py_XDECREF(holder);
    }
    Py_XDECREF(name);
    PyGILState_Release(state);
    return code;
}
