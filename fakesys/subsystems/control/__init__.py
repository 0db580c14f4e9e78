"""`sys/kernel/debug/fakesys`: the directory that no real machine has, for the machine as a whole.

* `Control` (`model.py`): last refusal, internal errors, journals, faults, lockdown and seed. The
  machine owns it; what it needs of the machine are the Protocols `WholeMachine`, `Profiles` and
  `Calls`, which `machine/machine.py` fulfils.
* `Faults` (`faults.py`): errors and delays that calls meet although the models allow them.
* `Recordings` (`recording.py`): every open file `writes`, each with a shell script of what
  happens; `script.py` writes and reads the lines of such a script. `WritersFile` (`writers.py`):
  every open file `writers`, which hears the same and tells who wrote.
* `SnapshotFile` (`snapshots.py`), `JournalText` and `JournalPipe` (`streams.py`): open files of
  their own kind.
* `files.py`: the table of the directory.

Order of a write anywhere on the mount: recordings take the time, faults may refuse it, the model
acts, the result becomes `last_error`, recordings get the line. Hooks that are not needed are not
set: without a fault or a reader a call pays nothing.

A reset clears refusal and faults; internal errors, journals and open recordings live on.

    echo 'sys/bus/ap/apmask ENOSPC' > sys/kernel/debug/fakesys/faults/store
    echo -4 > sys/bus/ap/apmask
    cat sys/kernel/debug/fakesys/last_error
"""
