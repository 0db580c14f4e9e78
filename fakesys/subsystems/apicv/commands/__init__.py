"""The commands about interrupts: rows of `fakesys/kvm/ctl`, and `fakesys/kvm/preset`.

    catalog       all rows for `ctl`, in the order of the reference
    vcpu          run states, and the ioctls of a vCPU
    guest         what a guest does at its local APIC and at the PIC
    controllers   PIC, IOAPIC and their lines, PIT, RTC, a PIC in user space
    devices       assigned devices, the GA log, SEV, automatic handlers
    operands      operands, options and look-ups that they share
    presets       rows for `preset`: the boots of `presets.py`

Each row is a `Verb[Apicv]`; its handler turns arguments into numbers and enumerations and calls one
function of `engine` or `devices`. A handler checks only what text makes possible (a missing
`dst=`); all other refusals come from the function, before any change. The reference page
and the list of errnos are printed from the rows, so a new command is one row.

The words of the commands are ours; what they do follows the kernel functions that the called
functions cite.

    echo 'g ioapic 5 vec=0x35 dst=1 trig=level' > fakesys/kvm/ctl
    echo 'g irq 5 1 status' > fakesys/kvm/ctl; cat fakesys/kvm/last     # ok status=1
    echo 'linux-boot vcpus=4' > fakesys/kvm/preset
"""
