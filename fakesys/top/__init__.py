"""`fakesys top`: a running mount in a terminal, for those who have no browser at hand.

It knows what `fakesys view` knows: a `Watcher` of that package reads the mount on a thread of its
own into a `Store`, so that a daemon that does not answer never blocks the keys. A frame is made of
what the store holds at that moment.

* `rates.py`: `Rates` keeps the last readings of counters and tells what they gain per second.
* `owners.py`: the queues of each adapter by owner, counted from masks.
* `frame.py`: the lines of a frame, cut to a width and a height. It knows no terminal.
* `terminal.py`: `watch` shows frames until `q` or Ctrl-C; `print_frame` prints a single one.

Text of the mount is printed without markup and without control characters.

    >>> from fakesys.top.rates import Rates
    >>> rates = Rates(window=1.0)
    >>> rates.note(0.0, {"exits": 10})
    >>> rates.note(2.0, {"exits": 30})
    >>> rates.of("exits")
    10.0
"""
