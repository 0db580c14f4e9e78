"""Guest memory without any MMU: host mappings, memslots, and KVM's own access to guest memory.

`HostSpace` (host.py) owns the mappings of the process that owns the VM, each a `HostMemory` with
its content. `AddressSpaces` (memslots.py) owns one `Memslots` per address space, and those their
`Memslot`s; a slot refers to the host memory behind it. `GuestMemory` (guest_memory.py) reads and
writes guest physical addresses through the slots.

A request passes `AddressSpaces.check` before anything changes; the change itself, with its zap and
its generation, is made by `VmMemory.set_region`. Between two commands no slot is invalid, no slots
of one address space overlap, and no generation has UPDATE_IN_PROGRESS set.

Follows virt/kvm/kvm_main.c (v6.1): __kvm_set_memory_region, kvm_read_guest_page. Example:

    host = HostSpace()
    ram = host.add("ram", 2 << 20)
    spaces = AddressSpaces(host, as_num=1, user_mem_slots=509, physical_bits=48, start=0)
    region = Region(0, 0, 0, ram.size, ram.hva)
    assert spaces.check(region) is Change.CREATE
    spaces.memslots[0].insert(spaces.new_slot(region))
"""
