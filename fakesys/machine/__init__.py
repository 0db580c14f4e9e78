"""A whole machine: models of the kernel's subsystems, put together behind a tree of files.

It offers `Machine` (`machine.py`), which tests, transports and the command line use:

    machine = Machine("6.1", "default", seed=7)
    machine.write("sys/bus/ap/apmask", "-4")
    machine.clock.advance(30)
    saved = machine.save()

* `Machine` owns a `Subsystems`, a `FileSystem`, a `Control`, and remembers its `Origin`.
* `Subsystems` (`subsystems.py`) owns the models: `ap.py`, `kvm`, `tracing.py` each put one part
  together with its files. A reset and a load make another `Subsystems`; all else stays.
* `KernelChoices` (`kernel_choices.py`) picks kernels from `profiles.py`, the only module that
  knows versions of the kernel.
* `hardware.py` declares what a machine begins with and turns it into hardware and commands;
  `scenario.py` reads a whole scenario, by `untrusted`, which reads any file within limits.
* `snapshot.py` writes and reads a machine as a file, with the models by `saved_models.py`; neither
  knows `Machine`.
* `timeline.py` runs the dated steps of a scenario, on the clock of a mount or all at once.

Order at the start: journals listen, models are built, the tree is bound to their files, guests of
the scenario are made by writes. Order of a load: the file is decoded and new models are filled,
then the machine changes. Between two calls the tree is settled: no node shows a model that is gone.

`playback` runs recordings on a machine, `reference` prints the page of all files and
tracepoints. Neither is imported by a mount that does not need it. Nothing here follows a file of
the kernel; the subsystems do.
"""
