"""The adjunct processor (AP) bus: crypto cards, their queues, and the drivers that have them.

Three layers, each of which knows only those before it:

* `hardware.py`: what the support element installed and gave to this Linux. `Hardware` answers
  PQAP and SCLP and calls `on_change` after each change. It knows no bus. What it is built from
  at power on is in `hardware_spec.py`.
* `state.py`: `BusState` holds what Linux learned at the last scan: masks, cards, drivers. A card
  device (`card.py`, `ApCard`) holds all its queues as masks of domains; a queue device
  (`queue.py`, `ApQueue`) is a view of one bit of its card.
* `bus.py`: `ApBus` owns a `BusState` and has the operations that files call. `binding.py` gives
  queues to drivers, `scan.py` makes and removes devices.

A driver is a `QueueDriver` (`drivers.py`); the module behind it implements `QueueOwner`. That of
the host's driver is in `zcrypt.py`, which sends requests to cards; `card_info.py` asks them what
files show. The other one is in `subsystems/vfio_ap`. `queues/` has what is true of many queues.

Order: the hardware changes, `ApBus.machine_changed` scans, `scan` makes devices, `Binding` offers
new queues to the drivers, and the uevents of a row of queues are sent as one batch (`uevents.py`).

Between two operations each queue has at most one driver, no driver has a queue that the masks
give to the other one, and a queue that is absent from its card is bound to no driver.

Follows drivers/s390/crypto/ap_bus.c, ap_card.c, ap_queue.c, zcrypt_card.c, zcrypt_queue.c and
zcrypt_cex4.c (v6.1). Kernels differ by a `BusPolicy` (`policy.py`) and by rows of `files/`.

    bus = ApBus(kernel, Hardware(DEFAULT, kernel.bus), policy)
    bus.start()
    bus.set_apmask(0)                 # every queue leaves cex4queue
    bus.state.driver_of(Apqn(4, 0x47))
"""
