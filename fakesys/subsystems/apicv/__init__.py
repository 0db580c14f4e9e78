"""AVIC / APICv and the interrupt controllers of a virtual machine.

From bottom to top; nothing imports upwards:

    policy.py  causes.py            how one kernel behaves: rows, no code paths
    lapic.py  pic.py  ioapic.py     the controllers, each alone
    pit.py  rtc.py  avic_tables.py
    vcpu.py  vm.py                  state per vCPU and VM
    lines.py                        tracepoints
    crowd.py                        kicks, wakes, requests to all vCPUs at once
    switch.py                       the VM-wide state: enum, bits or counted bits
    apicmap.py  running.py          who answers to which id; who is marked as running
    activation.py                   what a vCPU does when the VM-wide state changed
    delivery.py  irqs.py  eoi.py    interrupts to LAPICs, through PIC and IOAPIC, and back
    injection.py  entry.py          the way into the guest
    guest.py  ipi.py  access.py     what a guest does
    posted.py  synic.py  model.py   assigned devices, Hyper-V, and the extension of `Kvm`
    presets.py  verbs.py  views.py  files.py

Commands run to quiescence (`entry.quiesce`); see there for the order of what happens.
"""
