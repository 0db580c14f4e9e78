"""The debug feature of s390: `debug/s390dbf/NAME`, where drivers keep messages by level.

* `DebugFeature` (`model.py`) is one directory: a level, a number of pages, and the messages in
  them. A message whose level is above that of the feature is not kept.
* `DebugFeatures` owns those of a machine, each of which is there while its module is loaded.
* `files.py`: `level`, `pages`, `flush` and the view `sprintf`.
* `saved.py`: all of it in a snapshot.

What drivers say is written by `write`; the texts are in `messages` of the subsystems. Between two
operations a feature has at most as many messages as its pages hold. Kernels differ by a
`DebugPolicy`.

Follows arch/s390/kernel/debug.c (v6.1). Differs: times begin with the machine, and the address of a
caller is one per feature.

    echo 6 > sys/kernel/debug/s390dbf/ap/level
    echo +5 > sys/bus/ap/apmask
    cat sys/kernel/debug/s390dbf/ap/sprintf
"""
