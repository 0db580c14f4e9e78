"""Experiments with the models: numbers, tables and plots. No module here prints anything.

* `livelock.py`: delete a memslot while vCPUs fault, with zap_all and with the fast flow.
* `apicv.py`: boot a guest over simulated time; measure storms of interrupt windows.
* `series.py`: the levels of the series of vfio_ap and of AVIC, one row each.
* `tasks.py`: the cases of these three as tasks of a pool.
* `ap_matrix.py`: the AP matrix of a machine, each queue with its owner.

An experiment has a `Setup` (what to measure), cases that are run one by one so that a caller can
show progress, results as plain tuples, a `Table` (`tables.py`) per question, and a module that
draws (`livelock_plot.py`, `apicv_plot.py`, on `plots.py`). Each case makes its own VM and owns it,
so results depend neither on the order of the cases nor on real time: the same setup gives the same
numbers, and the same bytes of a plot.

The experiments use the models directly, without a machine and without files; but for `series.py`,
which writes what a shell writes. matplotlib and rich
are imported when something is drawn or printed. The kernel files are those of the models, in
particular arch/x86/kvm/mmu/mmu.c (kvm_mmu_zap_all_fast) and arch/x86/kvm/svm/avic.c.

    setup = livelock.Setup(vcpus=(0, 1, 2), working_set=4 << 20)
    outcomes = [livelock.measure(case, setup) for case in livelock.flow_cases(setup)]
    print(livelock.flow_table(setup, outcomes).rows)
"""
