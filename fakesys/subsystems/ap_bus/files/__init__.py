"""The files of the AP bus, as tables of rows that call the models of `subsystems/ap_bus`.

* `bus.py`: `/sys/bus/ap` with its masks and settings, the drivers' directories, the parameters
  of the module, and `mounts`, which says where all tables of this folder appear.
* `cards.py`: `/sys/devices/ap/cardXX`, on an `ApCard`.
* `queues.py`: `/sys/devices/ap/cardXX/XX.YYYY`, on an `ApQueue`.
* `modules.py`: rows that several tables share, such as those of a loaded module.

A row parses text and calls one method; the methods raise the errno. Rows of other modules are
handed to `mounts`, so that no table here knows vfio_ap.

The directory of devices and those of drivers are cached by the tree. Whatever changes a set of
names emits `Changed` with the model of that directory: `BusState` for `devices/`, `ApBus` for
`drivers/`, the driver itself for the links to its devices.

Follows the attribute groups of ap_bus.c, ap_card.c, ap_queue.c, zcrypt_card.c and zcrypt_queue.c
(v6.1). A kernel that differs has a row of its own, chosen by `needs` and `unless`:

    cat /sys/bus/ap/apmask
    echo -4 > /sys/bus/ap/apmask
"""
