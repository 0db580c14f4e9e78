"""Files and directories that another person made: read, parsed and entered within limits.

A scenario or a recording may come from anywhere. Whatever is in it, a command that reads it ends
soon, needs little memory, says in one line why it cannot be used, and touches nothing outside of
the mount that it was given.

* `files.py`: `read_file` reads a regular file, or a pipe that ends in time, up to a size.
* `toml.py`: `table_of` parses TOML of limited depth, with keys of limited length. The parser of the
  standard library needs time that grows with the square of a key, and a stack that grows with the
  depth of an array.
* `below.py`: `Below` opens, makes and removes what lies below a directory; the kernel refuses
  every path that leads out of it, by `..`, by a leading slash or by a symbolic link.

    data = read_file(Path("scenario.toml"), 1 << 20)
    table = table_of(data)
    with Below(Path("./mountpoint")) as place:
        descriptor = place.open("sys/bus/ap/apmask", os.O_WRONLY)

Each function owns what it opens; a `Below` keeps one descriptor of its directory until it is
closed. Nothing here knows what a scenario or a recording is. `below.py` follows
fs/open.c:build_open_flags and fs/namei.c:path_openat (v6.1) in what openat2(2) refuses.
"""
