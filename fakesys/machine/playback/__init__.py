"""The writes of a recording, run again.

`run_steps` (`replay.py`) takes the steps of a recorded script to a `Target`, which is a machine of
this process (`InMemory`) or a mount (`OnMount`), and yields a `Difference` for each other result.

The caller owns the machine; the steps only write to it and read from it, as a shell could. The
machine's time stops between two steps; the clock's rate is put back at the end.

    for difference in run_steps(steps, InMemory(machine)):
        print(difference)
"""
