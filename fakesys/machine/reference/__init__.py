"""The reference page `fakesys/docs/abi.md`, made from the declarations and never by hand.

* `folders` (`files.py`): every directory and file of every profile, from the tables of rows.
* `events` (`tracepoints.py`): every tracepoint, with fields and print format, and the kernels of
  KVM in which it has them.
* `differences` (`differences.py`): the remarks `Differs:` of docstrings, read from the sources.
* `markdown` and `plain` (`page.py`) put them together for `fakesys abi`.

All four make their data when they are called and keep nothing. `tests/test_abi.py` compares the
committed page; `make abi` writes it. Only the command `fakesys abi` imports this folder.

    print(events()["kvm:kvm_entry"].forms[0].fields)

A remark begins with `Differs:` and ends with its paragraph; the first kernel file that the same
docstring names is shown beside it.
"""
