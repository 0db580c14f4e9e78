"""`fakesys view`: a live page of a running mount, by a process beside its daemon.

The daemon knows nothing of it: it reads the files of the mount as any program does, and polls its
streams. `Watcher` (`watching.py`) is a thread that reads; `Store` (`store.py`) is what it found;
each page has a `Reader` of the store, which asks at most ten times a second what has changed since
it asked last. So a page that falls behind is sent the present state, not what it missed.

* `reading.py`: the AP part and KVM as JSON values. `streams.py`: uevents, log, writes, trace.
* `actions.py`: the buttons of `--control`. `queues.py`: the files of one queue.
* `guard.py`: refuses other hosts, other origins and addresses without the token.
* `server.py`: the addresses of the page, by Starlette and uvicorn (the extra `fakesys[view]`).
* `static/`: the page. Text of the mount becomes text there, never markup.

What each reading took is its pace: the daemon spends at most a twentieth of its time on a page.

    >>> store = Store()
    >>> store.replace("mount/", {"mount/point": "/mnt"})
    >>> Reader(store).news()["set"]
    {'mount/point': '/mnt'}
"""
