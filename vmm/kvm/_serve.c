/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The handlers of single accesses, called from C: an exit that Python serves costs a look at what is known and the call,
 * and no bytecode but the handler's own; writes that KVM has collected are handed over in one go. The rows pio_out to
 * mmio_read, rdmsr_python, wrmsr_python, hypercall_python and coalesced_python of the bench show it.
 *
 * Whatever is not plainly served goes to Python: an access nobody is known for yet, an answer that is no int in range,
 * what a handler raises.
 */

/* The handlers that one call has met: to look one up in Python's table takes as long as to call it. */
#define VMM_KNOWN 8
struct vmm_known { long long key; __u64 changes; struct vmm_call call; };

/* Who serves this key by Python's table, as a reference of ours, or NULL. */
static COLD PyObject *looked_up(void *table, long long key)
{
    PyObject *number = PyLong_FromLongLong(key), *found = NULL;

    if (number && table) {
#ifdef Py_GIL_DISABLED
        (void)PyDict_GetItemRef(table, number, &found); /* another thread may empty the table meanwhile */
#else
        found = PyDict_GetItemWithError(table, number);
        Py_XINCREF(found);
#endif
    }
    Py_XDECREF(number);
    if (!found)
        PyErr_Clear(); /* short of memory: Python looks it up itself, and says so */
    return found;
}

/* Look up who serves this key, and know it from now on. */
static COLD void get_to_know(struct vmm_finish *finish, struct vmm_known *one, void *table, long long key)
{
    __u64 changes = finish->changes; /* before the look-up: a change after it voids what was found */
    PyObject *row = looked_up(table, key);

    Py_XDECREF(one->call.row);
    one->call.row = NULL;
    one->key = key;
    one->changes = changes;
    if (row && !taken_apart(&one->call, row))
        Py_DECREF(row);
}

/* Who serves this key, or NULL. The address decides the place, so that a few devices do not push each other out. */
static struct vmm_call *handler(struct vmm_finish *finish, struct vmm_known *known, void *table, long long key)
{
    struct vmm_known *one = &known[(key >> 8 ^ key) % VMM_KNOWN];

    if (RARELY(!one->call.row || one->key != key || one->changes != finish->changes))
        get_to_know(finish, one, table, key);
    return one->call.row ? &one->call : NULL;
}

static void forget(struct vmm_known *known)
{
    for (int i = 0; i < VMM_KNOWN; i++)
        Py_XDECREF(known[i].call.row);
}

/* Tell Python a value, which is given away with it. */
static COLD long long tell(void *told, long long code, PyObject *value)
{
    if (PyList_Append(told, value) < 0)
        PyErr_Clear(); /* short of memory: what is not in the list says so */
    Py_DECREF(value);
    return code;
}

/* What the handler raised, complete with its traceback, as a value: cffi's call cannot raise. */
static COLD long long raised(void *told)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value ? tell(told, VMM_RAISED, value) : VMM_RAISED; /* who failed and raised nothing: an empty list */
}

/* Call a handler of writes: what it returned, or NULL. */
static PyObject *written(struct vmm_call *call, __u64 number)
{
    PyObject *value = PyLong_FromUnsignedLongLong(number), *result;

    if (RARELY(!value))
        return NULL;
    *given(call) = value;
    result = called(call, 1);
    Py_DECREF(value);
    return result;
}

static long long served_write(struct vmm_core *core, struct vmm_call *call, int refusable)
{
    PyObject *result = written(call, core->value);

    if (RARELY(!result))
        return raised(core->told);
    if (refusable && result == Py_False)
        core->run->msr.error = 1;
    Py_DECREF(result);
    return VMM_FINISHED;
}

/* An answer that is not plainly what the guest can have: whose it is, and it. */
static COLD long long to_judge(struct vmm_core *core, struct vmm_call *call, PyObject *result, long long key)
{
    PyObject *who = PyTuple_GetItem(call->row, 0);

    core->key = key;
    Py_INCREF(who);
    tell(core->told, VMM_ANSWERED, who);
    return tell(core->told, VMM_ANSWERED, result);
}

static long long served_read(struct vmm_core *core, struct vmm_call *call, __u32 size, long long key)
{
    PyObject *result = called(call, 0);
    unsigned long long value;

    if (RARELY(!result))
        return raised(core->told);
    if (USUALLY(PyLong_CheckExact(result))) {
        value = PyLong_AsUnsignedLongLong(result);
        if (RARELY(value == (unsigned long long)-1) && PyErr_Occurred()) {
            PyErr_Clear(); /* below 0, or of more than 64 bits */
        } else if (USUALLY(size >= sizeof value || !(value >> 8 * size))) {
            core->reply[0] = value;
            Py_DECREF(result);
            return VMM_FINISHED;
        }
    }
    return to_judge(core, call, result, key);
}

/* A hypercall that KVM passes on: its handler gets what the registers hold, and answers RAX, signed or not. */
static COLD long long served_hypercall(struct vmm_core *core, struct vmm_call *call, long long key)
{
    PyObject **arguments = given(call), *result = NULL;
    size_t count = 0;

    while (count < VMM_GIVEN && (arguments[count] = PyLong_FromUnsignedLongLong(core->run->hypercall.args[count])))
        count++;
    if (count == VMM_GIVEN)
        result = called(call, count);
    while (count)
        Py_DECREF(arguments[--count]);
    if (RARELY(!result))
        return raised(core->told);
    if (PyLong_CheckExact(result)) {
        long long value = PyLong_AsLongLong(result);

        if (value != -1 || !PyErr_Occurred()) {
            core->reply[0] = (__u64)value;
            Py_DECREF(result);
            return VMM_FINISHED;
        }
        PyErr_Clear(); /* of more than 63 bits: it may still be an unsigned answer */
    }
    return to_judge(core, call, result, key);
}

/* With the GIL: VMM_FINISHED where a handler has served this, else what Python has to do. */
static long long served(struct vmm_core *core, struct vmm_known *known, long long key)
{
    int code = (int)(key & 0xF);
    struct vmm_call *call;

    if (code == VMM_PORT_OUT || code == VMM_MMIO_WRITE || code == VMM_MSR_WRITE) {
        call = handler(core->finish, known, code == VMM_MSR_WRITE ? core->refusing : core->writers, key);
        return USUALLY(call) ? served_write(core, call, code == VMM_MSR_WRITE) : key;
    }
    if (code == VMM_PORT_IN || code == VMM_MMIO_READ || code == VMM_MSR_READ) {
        call = handler(core->finish, known, core->readers, key);
        return USUALLY(call) ? served_read(core, call, (__u32)(key >> 4 & 0xF), key) : key;
    }
    if (code == VMM_HYPERCALL) {
        call = handler(core->finish, known, core->readers, key);
        return USUALLY(call) ? served_hypercall(core, call, key) : key;
    }
    return key;
}

/* KVM_RUN and its handlers, until there is something that only Python can do: its code, with a key where it is an exit.
 *
 * cffi has let go of the GIL; it is taken for the handlers, and the guest runs without it where anybody else could want
 * it. */
long long vmm_core_serve(struct vmm_core *core)
{
    struct vmm_known known[VMM_KNOWN];
    PyGILState_STATE state = PyGILState_Ensure();
    PyThreadState *me = PyThreadState_Get();
    void *only = only_interpreter();
    long long key = VMM_FINISHED;

    for (int i = 0; i < VMM_KNOWN; i++)
        known[i].call.row = NULL;
    while (key == VMM_FINISHED && !core->attention) {
        int keep = only && alone(only, me);

        if (!keep)
            let_go();
        key = core_run(core);
        if (!keep)
            take_again(me);
        key = served(core, known, key);
    }
    __atomic_store_n(&in_handler, 0, __ATOMIC_RELAXED);
    forget(known);
    PyGILState_Release(state);
    return key == VMM_FINISHED ? VMM_ATTENTION : key;
}

/* The same from the beginning of a run. That the guest has halted is told without a look at kvm_run. */
long long vmm_core_round(struct vmm_core *core)
{
    long long key;

    vmm_core_reset(core);
    key = vmm_core_serve(core);
    return key == VMM_DECODE && !core->error && core->run->exit_reason == KVM_EXIT_HLT ? VMM_HALTED : key;
}

/* Writes that KVM has collected for handlers that `writers` knows, in the guest's order, each taken out before its
 * handler is called. VMM_FINISHED: none is left; VMM_OUTPUT: the next is the console's; VMM_RAISED: what a handler
 * raised is in `told`; else the key of the next, which is still in its place. One caller at a time. */
long long vmm_collected(struct vmm_finish *finish, void *writers, void *told)
{
    struct kvm_coalesced_mmio_ring *ring = finish->ring;
    struct vmm_known known[VMM_KNOWN];
    PyGILState_STATE state = PyGILState_Ensure();
    long long key = VMM_FINISHED;
    __u32 first;

    for (int i = 0; i < VMM_KNOWN; i++)
        known[i].call.row = NULL;
    while ((first = ring->first) != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
        struct kvm_coalesced_mmio *one = &ring->coalesced_mmio[first];
        __u64 value = load(one->data, one->len > 8 ? 8 : one->len);
        struct vmm_call *call;
        PyObject *result;

        if (one->pio && one->phys_addr == finish->sink_port) {
            key = VMM_OUTPUT;
            break;
        }
        key = key_of(one->pio ? VMM_PORT_OUT : VMM_MMIO_WRITE, one->len, one->phys_addr);
        call = handler(finish, known, writers, key);
        if (!call)
            break;
        key = VMM_FINISHED;
        __atomic_store_n(&ring->first, (first + 1) % VMM_RING, __ATOMIC_RELEASE);
        result = written(call, value);
        if (!result) {
            key = raised(told);
            break;
        }
        Py_DECREF(result);
        if (ring != finish->ring)
            break; /* a handler has closed the machine, and the ring is gone */
    }
    forget(known);
    PyGILState_Release(state);
    return key;
}
