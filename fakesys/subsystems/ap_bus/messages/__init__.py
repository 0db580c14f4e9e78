"""What the drivers of the bus say in `debug/s390dbf`: one method for each message.

* `BusMessages` (`bus.py`): ap_bus.c and ap_queue.c, in the feature `ap`.
* `ZcryptMessages` (`zcrypt.py`): zcrypt_card.c, zcrypt_queue.c, zcrypt_api.c and those that ask
  cards, in the feature `zcrypt`.

A model of the bus, which nothing here knows, calls the method where the driver has its AP_DBF_* or
ZCRYPT_DBF_*. The level of the feature decides whether the message is kept, and nothing is written
for queues that nobody wants to hear of. Later than 6.1 there are no messages of the level 6.

Follows ap_bus.c, ap_queue.c, zcrypt_api.c, zcrypt_card.c, zcrypt_queue.c, zcrypt_ccamisc.c and
zcrypt_ep11misc.c (v6.1, v6.12). Differs: messages on what cannot happen here are left out, such as
those on memory, on answers of cards that make no sense, and on the binding of secure guests. A
queue in error says so once.

    messages = BusMessages(features)
    messages.queues_stopped(5, 1 << 0x47, stopped=True)
"""
