/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Interrupts that are sent again and again, each as a function that Python calls with nothing: what it needs lies ready,
 * and the GIL is kept, since neither an eventfd's write nor KVM_SIGNAL_MSI waits for anybody. A thread that has just slept
 * sends with few lines of code, which its caches have lost. The rows irqfd and hlt_wake of the bench show it.
 */

/* `self` is (struct vmm_signal as bytes, who keeps its `fd` there, what else to call). The last is for what the kernel
 * refuses: it asks again, and says what is wrong. It gives what the kernel gives, or when it was sent. */
static PyObject *send_signal(PyObject *self, PyObject *unused)
{
    const struct vmm_signal *signal = (void *)PyBytes_AsString(PyTuple_GetItem(self, 0));
    const __u64 one = 1;
    __u64 when = signal->timed ? clock_now() : 0;
    long result;

    (void)unused;
    if (signal->address)
        result = vmm_signal_msi(*signal->fd, signal->address, signal->data);
    else
        result = write(*signal->fd, &one, sizeof one);
    if (RARELY(result < 0))
        return PyObject_CallObject(PyTuple_GetItem(self, 2), NULL);
    return signal->timed ? PyLong_FromUnsignedLongLong(when) : PyLong_FromLong(result);
}

/* Put the function, with its `self`, into the list `told`; nothing where there is no memory. */
void vmm_signaller(void *self, void *told)
{
    static PyMethodDef function = {"signal", send_signal, METH_NOARGS, NULL};
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *made = PyCFunction_NewEx(&function, self, NULL);

    if (made)
        tell(told, 0, made);
    else
        PyErr_Clear();
    PyGILState_Release(state);
}
