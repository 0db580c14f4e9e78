"""What runs on a machine over time: the steps of a scenario, the writes of a recording.

* `Timeline` (`timeline.py`): dated writes and expectations of a scenario. On a mount `schedule`
  puts them on the clock; in process `run` does all of them as fast as it goes.
* `run_steps` (`replay.py`): the steps of a recorded script on a `Target`, which is a machine of
  this process (`InMemory`) or a mount (`OnMount`). It yields a `Difference` for each other result.

The caller owns the machine; both only write to it and read from it, as a shell could. What a
`Timeline` writes is no request of a user and is left out of recordings. During a replay the
machine's time stops between two steps; the clock's rate is put back at the end.

    timeline = Timeline(machine, machine.scenario, print)
    assert timeline.run(), timeline.failures

A timeline that is scheduled is part of a snapshot, so names in `timeline.py` are part of its
format.
"""
