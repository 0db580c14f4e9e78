"""A graph of Python objects as lines of JSON, and back: what snapshots are made of.

Knows no model. A class describes itself: `UNSAVED` maps attributes that are not written to
callables that make them at load; `after_load` is called when the whole graph exists.

* `Encoder` (`encode.py`) writes each object once; sharing and cycles stay.
* `Decoder` (`decode.py`) makes all objects of the lines, or raises `BadGraphError`.
* `Names` (`names.py`) is the register of classes, functions and constants that a file may refer to.
  Nothing is imported or looked up by a name from a file, so a file cannot execute foreign code.
* `Outside` (`encode.py`): objects that a graph refers to and does not own, as the transport.

Order: one `Names` per process, one `Encoder` or `Decoder` per graph. Decoding changes no existing
object; the caller replaces its roots when `Decoder.decode` has returned.

A file is valid for one version of the package only, since lines hold names of modules and numbers
of code objects; `machine/snapshot.py` writes the format and the version in front.

    names = Names(["fakesys.core"])
    roots, lines = Encoder(names, {}).encode({"clock": Clock()})
    Decoder(names, {}).decode(roots, [parse(line) for line in lines])["clock"]
"""
