"""What guests do with their memory: programs, real mode, many accesses at once, races with a zap.

A `Guest` (vcpu_run.py) runs one vCPU: `Guest.access` is one access with its faults, emulation and
exits (exits.py), `Guest.run` a program of `GuestOp`s (programs.py). A `Translation`
(translation.py) is the processor's walk, which may go through tables of the guest. 16-bit code is
run by `RealModeCode` (real_code.py), or by `RealMode` (real_mode.py) where KVM emulates every
instruction. `bulk_access` (bulk_access.py, bulk_tdp.py) makes up to 2**28 accesses in one command;
its result is that of single ones. A `Race` (race.py) deletes a slot while vCPUs (racers.py) fault,
in virtual time; repetition.py proves that one never ends. `write_guest_tables` (page_tables.py)
writes page tables for a guest.

A `Guest` owns its registers and refers to the VM's memory and the vCPU's MMU. KVM_RUN begins with
`Guest.enter`. An access then ends within the guest, or with a `VcpuExit` after which the vCPU is in
user space until `Guest.resume` or the next `Guest.enter`.

Follows arch/x86/kvm/x86.c: vcpu_run, x86_emulate_instruction, and vmx.c:
handle_invalid_guest_state (v6.1). Example:

    guest = Guest(memory, vcpu)
    guest.set_up(real_mode=False)
    exits = guest.run([GuestOp("w", 0x400000), GuestOp("rloop", 0x400000, times=512)])
"""
