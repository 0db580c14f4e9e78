r"""Print formats of events, compiled: a record becomes its line without an object in between.

* `tokens.py`: C source is cut into tokens. `types.py`: `Expr`, a Python expression with its C type.
* `expressions.py`: C expressions become Python expressions; `calls.py`: `__print_symbolic` and the
  other functions that print formats use.
* `formatting.py`: `%08llx` and its like become what Python's `%` of bytes takes.
* `compiler.py`: `compile_printer` makes the function.

A compiled function takes the beginning of its line, the microseconds of the second, and the record.
It unpacks those fields only that the line shows. What cannot be compiled raises
`CannotCompileError`: statements of C, names of the kernel's constants that the format does not
tell, symbols of addresses. The caller then prints by the tracepoint's own `text`; for all others
both give the same.

Follows include/trace/stages/stage3_trace_output.h and lib/vsprintf.c (v6.1). Example:

    make = compile_printer("kvm_cr", '"cr%x = 0x%lx", REC->cr, REC->val', form.fields)
    assert make(b"task-7 [000] 5.", 21, record) == b"task-7 [000] 5.000021: kvm_cr: cr0 = 0x1\n"
"""
