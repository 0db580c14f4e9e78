"""The two 8259 interrupt controllers. Like arch/x86/kvm/i8259.c (v6.1)."""

from __future__ import annotations

from collections.abc import Callable

SLAVE_PIN = 2


class Chip:
    """One 8259. Its registers are bitmaps by pin; pin 0 has the highest priority."""

    __slots__ = (
        "auto_eoi", "base", "elcr", "first_pin", "imr", "irr", "isr", "last_irr",
    )  # fmt: skip

    def __init__(self, first_pin: int) -> None:
        self.first_pin = first_pin
        self.irr = self.isr = self.imr = self.last_irr = self.elcr = 0
        self.base = 0
        self.auto_eoi = False

    def requested(self) -> int:
        """Return the pin to deliver now; -1 for none. Like i8259.c:pic_get_irq (v6.1)."""
        waiting = self.irr & ~self.imr
        if not waiting:
            return -1
        pin = _lowest(waiting)
        return pin if not self.isr or pin < _lowest(self.isr) else -1

    def set_pin(self, pin: int, *, level: bool) -> int:
        """Set the level of a pin. Like i8259.c:pic_set_irq1 (v6.1).

        Returns 1 for a new request, 0 if it coalesced with a pending one, -1 if the pin is masked.
        """
        mask = 1 << pin
        new = 1
        if not level:
            self.last_irr &= ~mask
            if self.elcr & mask:
                self.irr &= ~mask
        else:
            if self.elcr & mask or not self.last_irr & mask:
                new = int(not self.irr & mask)
                self.irr |= mask
            self.last_irr |= mask
        return -1 if self.imr & mask else new


class Pic:
    """Master and slave.

    `output`: the line to the processors. `sources`: by pin, the mask of sources that hold it high.
    `wake` is called when a vCPU must look at the output. `acked(pin)` is called after the interrupt
    of a pin ended; pins 8-15 are the slave's. `wakes_for_nothing`: `wake` is called on every update
    while the output is low, as kernels did that had no check of the level in
    i8259.c:pic_irq_request.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        acked: Callable[[int], None],
        wakes_for_nothing: bool,
    ) -> None:
        self.master = Chip(0)
        self.slave = Chip(8)
        self.output = False
        self._wake = wake
        self._acked = acked
        self._wakes_for_nothing = wakes_for_nothing
        self._wake_needed = False
        self.sources = [0] * 16

    def chip_of(self, pin: int) -> Chip:
        """Return the chip that has this pin, 0-15."""
        return self.slave if pin >= 8 else self.master

    def set_irq(self, pin: int, source: int, *, level: bool, traced: Callable[[int], None]) -> int:
        """Set the level of one source of a pin; the pin is high while any of its sources is.

        Returns as `Chip.set_pin`. `traced(result)` is called where the kernel has its tracepoint:
        after the update of the output, before the wake-up. Like i8259.c:kvm_pic_set_irq (v6.1).
        """
        bit = 1 << source
        shares = self.sources[pin]
        self.sources[pin] = shares | bit if level else shares & ~bit
        result = self.chip_of(pin).set_pin(pin & 7, level=bool(self.sources[pin]))
        self._update()
        traced(result)
        self._unlock()
        return result

    def acknowledge(self) -> int:
        """Take the pending interrupt and return its vector; without one the spurious vector, pin 7.

        Like i8259.c:kvm_pic_read_irq (v6.1).
        """
        self.output = False
        vector = self._acknowledge_master()
        self._update()
        self._unlock()
        return vector

    def end(self, chip: Chip) -> None:
        """Do a non-specific EOI: end the interrupt in service that has the highest priority."""
        if chip.isr:
            pin = _lowest(chip.isr)
            self._clear(chip, pin)
            self._update()
        self._unlock()

    def configure(self, base: int, imr: int, *, auto_eoi: bool) -> None:
        """Set the state as KVM_SET_IRQCHIP does.

        `base`: vector of pin 0; the slave's begin 8 above. `imr`: masks of the 16 pins.
        """
        self.master.base, self.slave.base = base, base + 8
        self.master.imr, self.slave.imr = imr & 0xFF, imr >> 8
        self.master.auto_eoi = self.slave.auto_eoi = auto_eoi
        was_high = self.output
        self._update()
        # Setting the state wakes a vCPU only if an interrupt is pending now and was not before.
        self._wake_needed = self.output and not was_high
        self._unlock()

    def _acknowledge_master(self) -> int:
        pin = self.master.requested()
        if pin < 0:
            return self.master.base + 7
        self._take(self.master, pin)
        return self._acknowledge_slave() if pin == SLAVE_PIN else self.master.base + pin

    def _acknowledge_slave(self) -> int:
        pin = self.slave.requested()
        if pin < 0:
            return self.slave.base + 7
        self._take(self.slave, pin)
        return self.slave.base + pin

    def _take(self, chip: Chip, pin: int) -> None:
        chip.isr |= 1 << pin
        if not chip.elcr >> pin & 1:
            chip.irr &= ~(1 << pin)
        if chip.auto_eoi:
            self._clear(chip, pin)

    def _clear(self, chip: Chip, pin: int) -> None:
        chip.isr &= ~(1 << pin)
        # The kernel drops the lock around the notifiers, so a wake-up that is due comes before.
        self._unlock()
        self._acked(chip.first_pin + pin)

    def _update(self) -> None:
        if self.slave.requested() >= 0:
            self.master.set_pin(SLAVE_PIN, level=True)
            self.master.set_pin(SLAVE_PIN, level=False)
        level = self.master.requested() >= 0
        if not self.output and (level or self._wakes_for_nothing):
            self._wake_needed = True
        self.output = level

    def _unlock(self) -> None:
        if self._wake_needed:
            self._wake_needed = False
            self._wake()


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
