"""What is true of many queues at once: answers, state machines, orders. Knows no card and no bus.

* `answers.py`: the response codes of the AP instructions.
* `states.py`: `QueueStates`, the state machines of all queues of one card, as masks of domains.
* `master_keys.py`: `MasterKeys`, the keys of each domain.
* `order.py`: `QueueOrder`, the order in which queues were registered, or bound to a driver. The
  driver core walks them in it, so uevents follow it.

A fact about a queue is a bit in a mask, so that an operation on a card with 256 queues costs as
much as one on a single queue.

Follows ap_queue.c (v6.1): ap_sm_event and the functions of its table.

    states = QueueStates()
    states.operate(0b11)
    states.poll(0b11, {NORMAL: 0b11}, interrupts=True)    # a reset of both begins
"""
