"""How a kernel is booted: its command line and the parameters of modules.

* `BootLine` (`command_line.py`) is a command line. It splits into `Word`s; `of` gives those that
  are parameters of one module. Parameters that modules get when they are loaded have the same form.
* `param_int`, `param_bool` and others parse values as the types of module parameters do; a refusal
  becomes a line of the log by `wrong_parameter`.

Nothing here knows a module: a subsystem asks for its own parameters when it is made.

Follows kernel/params.c (v6.1).

    params = BootLine("ap.apmask=0xffff quiet").of("ap")      # (("apmask", "0xffff"),)
"""
