"""Every order in which actors can do their steps, tried in memory.

    task = task_of("mask-assign-unplug")
    outcome = explore(task, limit=1_000_000)
    print(outcome.violation or "holds")

* `task.py` reads a TOML file: the machine, what happens before, actors with their steps, and what
  must hold. A `Task` is plain data.
* `search.py` has `explore`, a function of a task and nothing else: breadth first over the states
  (place of each actor, state of the machine), so that the first violation is the shortest.
* `copies.py` takes a machine back to an earlier state, and gives each state its digest.
* `invariants.py` has what must hold in every machine; `watch.py` what each step must keep.
* `script.py` writes the way to a violation as a script for `fakesys replay`.

A step that was tried in a state is not tried again in it, whoever does it and whatever was done
before: the same state of the machine gives the same result. A `Task` owns nothing; `explore` owns
its machine, which it alone changes. No kernel file is followed here; the models do that.
"""
