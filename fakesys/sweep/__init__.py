"""Every failure of one program: each of its operations on the fake, disturbed in each way.

    sweep = Sweep(program_of(command, machine, environment, directory), Choice())
    sweep.begin()
    sweep.go_on(sweep.cells())
    print(sweep.report.findings)

* `operations.py`: what a program does, and how the same is found in another run of it.
  `disturbances.py`: what can go wrong at one. `plan.py`: a `Cell` is a pair of both, and a task.
* `cell.py` has `run_cell`, from plain data to plain data: what a worker of the pool calls. It keeps
  a `zygote.py`, a process that holds the machine and forks a `world.py` of it for each cell: a
  daemon, the relay of `fakesys exec`, and a runner of programs. `links.py`: how they talk.
* `stage.py` answers the zygote in the daemon, where `watch.py` comes between program and files,
  and `state.py` reads the state of the machine.
* `verdicts.py` compares the end of a cell with the ends of runs that nothing disturbed.
  `search.py` has `Sweep`, which does all this in order, and `runner`, which says where.
  `report.py` shows it, `pages.py` writes it as HTML and for JUnit.

A fork is a machine that nothing has happened to, so the cells cannot disturb each other. All
processes of a cell are children of its zygote in the end, which kills them all; their mounts are in
namespaces of their own and go with them. The files of the host are shared by all cells.
"""
