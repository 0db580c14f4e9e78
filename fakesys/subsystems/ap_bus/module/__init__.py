"""The module `ap`, which is built in: the parameters of the bus as given at boot.

* `ApParams` (`params.py`) are the values, which never change while a machine runs; `boot_params`
  makes them of the words of the boot command line.

The bus follows them when it is made (masks) and started (default domain, poll thread). Between two
operations `sys/module/ap/parameters` shows them as they were given, but for `domain`, which is the
default domain of now, as in the kernel.

Follows drivers/s390/crypto/ap_bus.c:ap_module_init, ap_perms_init (v6.1).

    boot_params(BootLine("ap.apmask=-5").of("ap"), kernel.log).adapters      # 0
"""
