"""Independent tasks on all processors of this machine, or on those of a Dask cluster.

    pool = Pool(jobs=4)                                # or Pool(cluster="tcp://host:8786")
    for index, result in pool.run("fakesys.lab.tasks:storm", tasks):
        ...                                            # in the order in which they end

* `pool.py` has `Pool`, the one object that a caller needs; it owns no process between two runs.
* `local.py` runs tasks in processes of this machine, one task at a time in each of them.
* `cluster.py` gives tasks to Dask distributed, which is imported only there.
* `options.py` has the options `--jobs` and `--cluster` of commands that use a pool.
* `work.py` is what a worker calls: a function by its name, with one task and the files for it.

Tasks and results are plain data (numbers, texts, lists, mappings), and the function is named by its
module, so that nothing but data goes to another process or machine. What a task gives must follow
from the task alone; then the results are the same with any number of workers, in any order. A
worker that dies loses no task: it is done again, by another one. A task that ends `ATTEMPTS`
workers raises `TaskLost`. What a function raises ends the run and is raised to the caller. However
a run ends, its processes end with it: by a signal first, so that a function may tidy up.
"""
