"""The kernels of the parts of a machine, as `profiles.py` offers them.

* `series.py`: a series of patches on top of an older kernel, `Series`, and the table of the kernels
  of one part, `Kernels`. A level of a series is the kernel after its first patches; any patch may
  be taken away from a level, as long as no later one needs it.
* `ap.py`: the kernels of the AP part: `5.3`, the levels of the series that made vfio_ap dynamic,
  and the releases that followed.
* `apicv.py`: the kernels of KVM's interrupts: `5.3`, the levels of the series that made AVIC
  dynamic, and releases.
* `mmu.py`: the kernels of KVM's core and memory: `5.1`, `5.3`, the levels of the series that made
  zapping fast, and releases.

A kernel of a series is built when its name is used for the first time, from the set of patches
that it has: each patch adds features, or replaces fields of a policy. No model knows of patches.

Between two commands a table offers the same kernels: names are only looked up, and the same name
gives the same object.

    AP_KERNELS["v6"]                # the whole series
    AP_KERNELS["v6-03"]             # its first three patches
    AP_KERNELS["v6-10-07-08"]       # all but two
    AP_KERNELS["v6-10-07"]          # KernelError: patch 08 needs patch 07
"""
