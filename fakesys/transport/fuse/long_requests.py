"""Requests that take long: performed again in slices, each answered once.

A handler that raises TakesLong has changed nothing. Its request is performed again as a `LongCall`;
between its slices the session serves other requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EINTR

from fakesys.core.errors import KernelError
from fakesys.core.events import IDLE
from fakesys.core.kernel import Caller
from fakesys.transport.fuse.parking import Call
from fakesys.transport.slices import Context, LongCall, LongCalls

# Performs a request and returns its answer, None when it is parked.
Attempt = Callable[[Call, Caller], bytes | None]
# Sends an answer, after clients were told of what has changed.
Deliver = Callable[[Call, bytes | None], None]


class LongRequest:
    """One request in slices. `answered`: the client has its answer, though the work goes on."""

    __slots__ = ("answer", "answered", "call", "work")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.work: LongCall | None = None
        self.answer: bytes | None = None
        self.answered = False


class LongRequests:
    """The long requests of a session, by their numbers."""

    def __init__(self, calls: LongCalls, attempt: Attempt, deliver: Deliver) -> None:
        self._calls = calls
        self._attempt = attempt
        self._deliver = deliver
        self.requests: dict[int, LongRequest] = {}

    def __bool__(self) -> bool:
        return bool(self.requests)

    def unanswered(self) -> Iterator[Call]:
        """Yield the calls whose clients wait."""
        return (request.call for request in self.requests.values() if not request.answered)

    def begin(self, call: Call, caller: Caller) -> None:
        """Queue a request for its first slice."""
        request = LongRequest(call)

        def run() -> None:
            request.answer = self._attempt(call, caller)

        request.work = self._calls.add(run, Context(caller, IDLE))
        self.requests[call.unique] = request

    def run_slice(self) -> None:
        """Run a slice of the request whose turn it is, and answer those that are done."""
        self._calls.run_slice()
        self.deliver_done()

    def interrupt(self, unique: int) -> bool:
        """End a request after a signal. Return True where it must be answered with EINTR now.

        That is one which has not begun, or which cannot end here: what it does is done to its end,
        without a client.
        """
        request = self.requests.get(unique)
        if request is None or request.work is None or request.answered:
            return False
        begun = request.work.begun
        request.work.interrupt(KernelError(EINTR, "a signal ended the call before it was done"))
        if begun:
            request.work.resume()
        else:
            request.work.drop()
        request.answered = not begun or not request.work.done
        must_answer = request.answered
        self.deliver_done()
        return must_answer

    def finish_all(self, refusal: KernelError) -> None:
        """End all requests but the present one with this refusal; they are answered after it."""
        self._calls.finish_all(refusal)

    def deliver_done(self) -> None:
        """Answer the requests that are done."""
        done = [request for request in self.requests.values() if request.work and request.work.done]
        for request in done:
            del self.requests[request.call.unique]
            self._deliver(request.call, None if request.answered else request.answer)
