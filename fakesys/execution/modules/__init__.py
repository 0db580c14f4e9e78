"""Files of modules for programs of kmod and busybox: `/lib/modules/RELEASE` of the private view.

* `tree.py`: the directory with a file for each module of the simulated machine, and the lists that
  depmod makes of them. It is bound over the directory of the running kernel.
* `index.py`: these lists in the binary form that libkmod reads.
* `stub.py`: the files of modules, which contain what `modinfo` shows and no code.
* `descriptions.py`: what `fakesys/modules/info` says of each module.

`modprobe` and the others then find the modules, and their system calls are answered by the relay
(`execution/requests/modules.py`). Follows depmod(8), modules.dep.bin of kmod 30, elf(5).
"""
