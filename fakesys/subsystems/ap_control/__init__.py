"""The AP part of a machine as a whole, and its control files below `fakesys/ap/`.

* `ApSystem` (`model.py`) owns the models of the AP part: `Hardware`, `ApBus`, `MdevBus`,
  `VfioAp`, `Guests`, `DeviceNodes` and `DebugFeatures`. It builds them in this order, and again
  for a preset or a reset. `modules.py` says what loading and removing its kernel modules does to
  them.
* `files.py`: settings, cards put in and taken out, the kernel that the AP part behaves as, and the
  streams of its uevents and log lines; `mounts` collects all tables.
* `hardware_files.py`: `lpar/`, `cards/` and `queues/`, the side of the support element; and the
  AP part's files below `fakesys/faults/`.
* `sharing.py`: which queues more than one can use, as kernels before the series allow.
* `key_files.py`: the master keys of domains, which files of queues show.
* `guest_files.py`: guests, which attach mediated devices and use their queues.

Order of a change at the support element: `Hardware` changes, notifies the bus, which scans if
`autoscan` is 1. A file here therefore returns after the devices have followed.

Between two operations all models belong to one hardware. A row must reach a model through
`ApSystem`, as a preset replaces all of them; so does `mounts` of the other subsystems, which take
callables.

Files of this folder exist on no real machine. What they simulate is drivers/s390/char/sclp_ap.c,
the support element, and KVM with a guest's PQAP(AQIC) (arch/s390/kvm/priv.c, v6.1).

    cd /sys/kernel/debug/fakesys/ap
    echo '7 CEX6C cca' > new_card
    echo 0 > cards/07/config
    echo guest1 > new_guest && echo $UUID > guests/guest1/attach
"""
