/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The handlers of single accesses, called from C: an exit that Python serves costs the way through the GIL, a look-up in
 * Python's own table and the call, and no bytecode but the handler's own. The rows pio_out to mmio_read, rdmsr_python and
 * wrmsr_python of the bench show it: a loop in Python around the same adds about twice as much to the floor.
 *
 * Whatever is not plainly served goes to Python: an access nobody is known for yet, an answer that is no int in range,
 * what a handler raises. Where there is a limited API only functions of the stable ABI since Python 3.2 are used, for one
 * wheel serves all of those Pythons.
 */

/* The handlers that one call of vmm_core_serve has met: to look one up in Python's table takes as long as to call it. */
#define VMM_KNOWN 8
struct vmm_known { long long key; __u64 changes; PyObject *call; };

/* Who serves this key by Python's table, as a reference of ours, or NULL. */
static PyObject *looked_up(void *table, long long key)
{
    PyObject *number = PyLong_FromLongLong(key), *found = NULL;

    if (number && table) {
#ifdef Py_GIL_DISABLED
        (void)PyDict_GetItemRef(table, number, &found); /* another thread may empty the table meanwhile */
#else
        found = PyDict_GetItemWithError(table, number);
        Py_XINCREF(found);
#endif
        Py_DECREF(number);
    }
    return found;
}

/* The same, with what is known. The address decides the place, so that a few devices do not push each other out. */
static PyObject *handler(struct vmm_core *core, struct vmm_known *known, void *table, long long key)
{
    struct vmm_known *one = &known[(key >> 8 ^ key) % VMM_KNOWN];
    __u64 changes = core->finish->changes; /* before the look-up: a change after it voids what was found */

    if (!one->call || one->key != key || one->changes != changes) {
        Py_XDECREF(one->call);
        one->call = looked_up(table, key);
        one->key = key;
        one->changes = changes;
    }
    Py_XINCREF(one->call);
    return one->call;
}

/* Tell Python a value, which is given away with it. */
static long long tell(struct vmm_core *core, long long code, PyObject *value)
{
    if (PyList_Append(core->told, value) < 0)
        PyErr_Clear(); /* short of memory: what is not in the list says so */
    Py_DECREF(value);
    return code;
}

/* What the handler raised, complete with its traceback, as a value: cffi's call cannot raise. */
static long long raised(struct vmm_core *core)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return tell(core, VMM_RAISED, value);
}

static long long served_write(struct vmm_core *core, PyObject *call, int refusable)
{
    PyObject *value = PyLong_FromUnsignedLongLong(core->value);
    PyObject *result = value ? PyObject_CallFunctionObjArgs(call, value, NULL) : NULL;

    Py_XDECREF(value);
    if (!result)
        return raised(core);
    if (refusable && result == Py_False)
        core->run->msr.error = 1;
    Py_DECREF(result);
    return VMM_FINISHED;
}

static long long served_read(struct vmm_core *core, PyObject *call, __u32 size, long long key)
{
    PyObject *result = PyObject_CallFunctionObjArgs(call, NULL);
    unsigned long long value;

    if (!result)
        return raised(core);
    if (PyLong_CheckExact(result)) {
        value = PyLong_AsUnsignedLongLong(result);
        if (PyErr_Occurred()) {
            PyErr_Clear(); /* below 0, or of more than 64 bits */
        } else if (size >= sizeof value || !(value >> 8 * size)) {
            core->reply[0] = value;
            Py_DECREF(result);
            return VMM_FINISHED;
        }
    }
    core->key = key;
    Py_INCREF(call);
    tell(core, VMM_ANSWERED, call);
    return tell(core, VMM_ANSWERED, result);
}

/* With the GIL: VMM_FINISHED where a handler has served this, else what Python has to do. */
static long long served(struct vmm_core *core, struct vmm_known *known, long long key)
{
    int code = (int)(key & 0xF);
    int read = code == VMM_PORT_IN || code == VMM_MMIO_READ || code == VMM_MSR_READ;
    int write = code == VMM_PORT_OUT || code == VMM_MMIO_WRITE || code == VMM_MSR_WRITE;
    PyObject *call = NULL;

    if (read)
        call = handler(core, known, core->readers, key);
    else if (write)
        call = handler(core, known, code == VMM_MSR_WRITE ? core->refusing : core->writers, key);
    if (!call)
        return key;
    key = read ? served_read(core, call, (__u32)(key >> 4 & 0xF), key) : served_write(core, call, code == VMM_MSR_WRITE);
    Py_DECREF(call);
    return key;
}

/* KVM_RUN and its handlers, until there is something that only Python can do: its code, with a key where it is an exit.
 *
 * cffi has let go of the GIL; it is taken for each handler, and the guest runs without it. */
long long vmm_core_serve(struct vmm_core *core)
{
    struct vmm_known known[VMM_KNOWN] = {{0}};
    PyGILState_STATE state = PyGILState_Ensure();
    long long key = VMM_FINISHED;

    while (key == VMM_FINISHED && !core->attention) {
        PyThreadState *thread = PyEval_SaveThread();

        key = core_run(core);
        PyEval_RestoreThread(thread);
        key = served(core, known, key);
    }
    for (int i = 0; i < VMM_KNOWN; i++)
        Py_XDECREF(known[i].call);
    PyGILState_Release(state);
    return key == VMM_FINISHED ? VMM_ATTENTION : key;
}
