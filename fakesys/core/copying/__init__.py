"""Texts of the whole machine, made in a copy of the process while others are served.

* `Text` (`copies.py`) is a text that is there, or is being made. Its reader raises Blocked until
  it is there, and so waits as for any event.
* `pipes` is what the transport of this process offers: it tells when a pipe can be read. Without
  it, as in memory, a text is made at once.

A copy is made by fork(2), which takes milliseconds whatever the machine holds. It shows the machine
of that moment, only makes the text, writes it to a pipe, and ends within a bounded time. It has no
descriptor of the mount, whose connection ends with the daemon. For example:

    text = Text(machine.save)          # a copy begins, if a transport serves this call
    data = text.text()                 # raises Blocked until it is done
"""
