"""How work that takes long lets others in, between its slices; lower than the rest of `core`.

All models run on one thread, so a request that works for seconds would keep every client waiting.

* `resched.py`: a model calls `might_resched` before it begins what may take long, and
  `cond_resched` or `cond_resched_killable` in its loops, where its state is one that others may
  see. The transport (`transport/slices.py`) then serves others between two slices of the call.
* `later.py`: what most machines never need is made when it is first asked for.

A text of the whole machine is made in a copy of the process instead (`core/copying`), where it
shows the machine of one moment.

Between two slices any other request may run: a loop keeps no iterator over live state across
`cond_resched`, and looks again at what it found before. In memory, where no transport serves, all
these functions do nothing, and calls run to their ends. For example:

    check_everything()
    if pages > FEW:
        might_resched()                # nothing has changed so far
    for page in range(pages):
        cond_resched_killable()        # raises EINTR after a signal; what was done stays done
        access(page)

Like kernel/sched/core.c:__cond_resched (v6.1) in purpose, not in mechanism.
"""
