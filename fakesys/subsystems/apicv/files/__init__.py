"""The views of the interrupts of a VM in `fakesys/kvm/vms/VM/`, and the same as plain data.

`views` returns the rows of these files: `state`, `vcpuN`, `physid`, `logid`, `ioapic`, `pic`,
`pit` and `irtes`. No real file shows this, so the format is ours: `key value` lines, or a line of
`key=value` words, in an order that never changes. Each file is made by a function `NAME_text(vm)`,
which takes an `ApicVm` and returns text; TEXTS lists them.

`state` turns the same texts into the dictionary that the machine's state contains.

Reading changes nothing: `requests.update_fields` brings a vCPU's fields up to date without
tracking it singly. The text of a vCPU is complete, so a test can compare two machines by it.

Follows no kernel file; the entries of `physid` and `logid` have the layout of the AMD manual,
volume 2, chapter 15.29.

    $ head -3 fakesys/kvm/vms/g/state
    profile v3
    irqchip kernel
    apicv_state 2 ACTIVATED
"""
