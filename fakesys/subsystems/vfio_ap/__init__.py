"""The module vfio_ap: AP queues for guests, through mediated devices.

* `VfioAp` (`driver.py`) is the module. Loaded, it has the queue driver `vfio_ap` on the AP bus
  and the matrix device, whose type of mediated device users create. It is the `QueueOwner` of its
  driver, so the bus calls it when queues come and go.
* `MatrixMdev` (`matrix_mdev.py`) is one mediated device. Its `matrix` is what the user assigned,
  its `guest_masks` the part of it that a guest gets.
* `Assignments` (`assignments.py`) is the table of which mediated device holds which APQN; driver
  and devices both use it. `QueueResets` (`resets.py`) resets queues and remembers bad answers.
* `Guest` (`guest.py`) opens a mediated device and uses what it gets.
* `VfioApMessages` (`messages.py`) is what the module says in `debug/s390dbf`.
* `VfioApState` (`state.py`) holds what all of them share: policy, masks of the machine, settings.

Order of an assignment: check the ID, refuse queues of the host (EADDRNOTAVAIL), refuse queues of
another device (EADDRINUSE), enter the new matrix in the table, filter what the guest gets.

Between two operations no APQN is in two matrices, or in a matrix and the host's masks, and a guest
has no queue that is not assigned. All filters but `v6-literal` also leave out what is not bound to
`vfio_ap`. Only `Assignments` writes `matrix`.

Follows drivers/s390/crypto/vfio_ap_ops.c and vfio_ap_drv.c (v6.1; v6.12 where a policy or a row
says so). Kernels differ by a `VfioApPolicy` (`policy.py`) and by rows of `files.py`.

    echo $UUID > /sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create
    echo 5 > /sys/devices/vfio_ap/matrix/$UUID/assign_adapter
    echo 0xab > /sys/devices/vfio_ap/matrix/$UUID/assign_domain
    cat /sys/devices/vfio_ap/matrix/$UUID/matrix      # 05.00ab
"""
