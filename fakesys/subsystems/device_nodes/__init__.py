"""Devices that have a node in /dev: misc devices, and the nodes of zcrypt with their masks.

* `NodeDevice` (`model.py`) is a device of a class with a device number. `VfioGroup` of
  `subsystems/mdev` is one more; it belongs to a mediated device.
* `DeviceNodes` owns the misc devices `z90crypt`, `pkey` and `vfio`, each of which is there while
  its module is loaded, and the nodes that users make in `class/zcrypt`.
* `ZcryptNode` is one of these: a name, a minor number and four masks of what the node allows.
* `pkey.py`: what the binary files of `pkey` hold: random keys, where a card can make them.
* `features.py`: how kernels differ in these.
* `files.py`: `class/misc`, `class/zcrypt`, `devices/virtual/misc`, `devices/virtual/zcrypt`.
* `saved.py`: the nodes of zcrypt in a snapshot.

Order: loading a module makes its class, then its misc device; removing it takes its nodes, its misc
device and its class away. Between two operations no two nodes have the same name or minor number.

Opening a node is not simulated: a file system cannot offer devices.

Follows drivers/s390/crypto/zcrypt_api.c, pkey_api.c, drivers/char/misc.c and
drivers/vfio/container.c (v6.1).

    echo my_node > sys/class/zcrypt/create
    echo +5 > sys/devices/virtual/zcrypt/my_node/apmask
    cat sys/devices/virtual/zcrypt/my_node/dev            # 252:0
"""
