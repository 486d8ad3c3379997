"""The engine's side of serving: who enters vLLM's scheduler, its steps, and what comes of them. All of it happens on
the engine's thread. Knows requests as tokens; no HTTP and no rows."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from typing import Final

from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.engine.parallel_sampling import ParentRequest

from worker import failpoints
from worker.engine.places import Places
from worker.serving import errors
from worker.serving.asks import Reason, Stream
from worker.serving.counts import Counts
from worker.serving.queues import Queues, Waiting

SHORT: Final = 4  # requests that wait in vLLM's own queue, which knows no tenants


@dataclass(eq=False)
class Asked:
    """A request to the engine. Its adapter acts from token `start` of the prompt on."""

    stream: Stream
    request: EngineCoreRequest
    prompt: str | None
    start: int = 0
    tokens: int = 0  # generated so far
    last: float | None = None  # when the last came, of those that are streamed
    waited: Waiting["Asked"] | None = None
    wears: bool = False  # it holds a place

    @property
    def name(self) -> str:
        return str(self.request.external_req_id)

    @property
    def params(self) -> SamplingParams:
        params: SamplingParams = self.request.sampling_params
        return params


@dataclass(frozen=True)
class Given:
    """Something for a stream's loop: an output, and whether it is the last, or an error."""

    stream: Stream
    output: RequestOutput | None = None
    last: bool = False
    error: BaseException | None = None


class Desk:
    """What `Owner.serve` is given. At most `limit` tokens wait here. `tell` hands on what a step has come to, `end`
    that the engine has ended; neither may raise or wait. `wake` is `Owner.post`."""

    def __init__(
        self,
        engine: LLMEngine,
        places: Places,
        limit: int,
        model: str,
        tell: Callable[[list[Given]], None],
        end: Callable[[BaseException], None],
        wake: Callable[[Callable[[], None]], None],
    ) -> None:
        self._engine, self._places = engine, places
        self._tell, self._end, self._wake = tell, end, wake
        self._queues: Queues[Asked] = Queues(limit)
        self._running: dict[str, Asked] = {}
        self._most = engine.vllm_config.scheduler_config.max_num_seqs
        self._counts = Counts(model)
        self._stalled = False  # what runs waits for something that is told by `nudge`
        self._scheduler = engine.engine_core.engine_core.scheduler
        self.steps = 0
        self.held: tuple[str, ...] = ()  # adapters in places; any thread may ask

    @property
    def queued_tokens(self) -> int:
        """Any thread may ask."""
        return self._queues.tokens

    @property
    def runnable(self) -> bool:
        return not self._stalled and bool(self._running or len(self._queues))

    def add(self, asked: Asked, cost: int) -> None:
        """Queue a request. Who finds no room is told."""
        self._stalled = False
        ask = asked.stream.ask
        asked.waited = Waiting(ask.salt, ask.weight, cost, ask.wears.name if ask.wears else None, asked)
        dropped = self._queues.put(asked.waited)
        self._counts.queued(self._queues.tokens)
        wait = self._counts.wait(self._queues.tokens)
        self._tell([Given(one.what.stream, error=errors.overloaded(wait)) for one in dropped])

    def abort(self, asked: Asked, reason: Reason) -> None:
        """Take it out, wherever it is, with what it holds. Nothing where it has ended."""
        self._stalled = False
        if asked.waited is not None and self._queues.remove(asked.waited):
            self._counts.queued(self._queues.tokens)
        elif self._running.get(asked.name) is asked:
            self._engine.abort_request([asked.name])
            self._leave(asked)
        else:
            return
        self._counts.aborted(reason)

    def nudge(self) -> None:
        """Something that was waited for has come."""
        self._stalled = False

    def step(self) -> None:
        """Let in whoever may, one step of vLLM's scheduler, and hand on its outputs."""
        entered = self._let_in()
        if not self._running:
            return
        self.steps += 1
        failpoints.point("serving_step")
        outputs = self._engine.step()
        self._tell([given for output in outputs if (given := self._given(output)) is not None])
        self._stalled = not entered and not outputs and self._all_wait()

    def failed(self, error: BaseException) -> None:
        """The engine has ended, and every stream with it."""
        self._end(error)

    def _let_in(self) -> bool:
        entered = False
        while len(self._queues) and self._has_room():
            if (one := self._queues.take(self._finds_place)) is None:
                break
            self._enter(one.what)
            entered = True
        if entered:
            self._counts.queued(self._queues.tokens)
        return entered

    def _has_room(self) -> bool:
        _, waiting = self._scheduler.get_request_counts()
        return bool(self._engine.get_num_unfinished_requests() < self._most and waiting < SHORT)

    def _finds_place(self, one: Waiting[Asked]) -> bool:
        asked = one.what
        wearable = asked.stream.ask.wears
        if wearable is None:
            return True
        try:
            adapter = self._places.take(wearable)
        except ValueError as error:  # refused alone: it goes in, and out with its error
            self._tell([Given(asked.stream, error=errors.Refused(422, "adapter_unfit", str(error), "model"))])
            return True
        if adapter is None:
            return False
        self.held = self._places.held
        self._counts.places(self.held, self._places.evicted)
        asked.wears = True
        worn = self._places.worn(adapter, asked.params, asked.start)
        asked.request.lora_request, asked.request.sampling_params = worn
        return True

    def _enter(self, asked: Asked) -> None:
        assert asked.waited is not None
        self._running[asked.name] = asked
        self._counts.running(len(self._running))
        if asked.stream.ask.wears is not None and not asked.wears:
            self._leave(asked)
            return
        self._counts.began(asked.stream.ask.arrived)
        try:
            self._submit(asked)
        except ValueError as error:
            self._engine.abort_request([asked.name])
            self._leave(asked)
            self._tell([Given(asked.stream, error=error)])

    def _submit(self, asked: Asked) -> None:
        """As vLLM's own engines add a request that was processed elsewhere: one for each of its choices."""
        request, params = asked.request, asked.params
        if params.n == 1:
            self._submit_one(asked, request, None, 0)
            return
        parent = ParentRequest(request)
        for number in range(params.n):
            child = copy(request)
            child.request_id, child.sampling_params = parent.get_child_info(number)
            self._submit_one(asked, child, parent, number)

    def _submit_one(self, asked: Asked, request: EngineCoreRequest, parent: ParentRequest | None, number: int) -> None:
        self._engine.output_processor.add_request(request, asked.prompt, parent, number)
        self._engine.engine_core.add_request(request)
        held_to = self._scheduler.requests[request.request_id].structured_output_request
        if held_to is not None and isinstance(held_to._grammar, Future):
            held_to._grammar.add_done_callback(lambda _: self._wake(self.nudge))

    def _given(self, output: RequestOutput) -> Given | None:
        asked = self._running.get(output.request_id)
        if asked is None or asked.waited is None:
            return None
        new = sum(len(choice.token_ids) for choice in output.outputs)
        self._count(asked, output, new)
        asked.tokens += new
        self._queues.took(asked.waited, len(output.prompt_token_ids or ()) + asked.tokens)
        if output.finished:
            self._counts.ended(len(output.prompt_token_ids or ()) + asked.tokens)
            self._leave(asked)
        if any(choice.finish_reason == "error" for choice in output.outputs):
            return Given(asked.stream, error=self._error(asked))
        return Given(asked.stream, output, output.finished)

    def _error(self, asked: Asked) -> errors.Refused:
        """vLLM ends a request alone for a grammar that cannot be compiled, and for nothing else that is used here."""
        if asked.params.structured_outputs is not None:
            return errors.invalid("The schema cannot be compiled.", "response_format", "invalid_schema")
        return errors.engine_failed()

    def _count(self, asked: Asked, output: RequestOutput, new: int) -> None:
        now = time.monotonic()
        if new and not asked.tokens:
            self._counts.prompt(len(output.prompt_token_ids or ()), output.num_cached_tokens or 0)
            if not output.finished:
                self._counts.first(now - asked.stream.ask.arrived)
        elif new and asked.last is not None:
            self._counts.next(now - asked.last)
        self._counts.generated(new)
        asked.last = now

    def _leave(self, asked: Asked) -> None:
        del self._running[asked.name]
        self._counts.running(len(self._running))
        if asked.wears and asked.stream.ask.wears is not None:
            asked.wears = False
            self._places.give(asked.stream.ask.wears.name)
        if asked.waited is not None:
            self._queues.ended(asked.waited, len(asked.request.prompt_token_ids or ()) + asked.tokens)

    def _all_wait(self) -> bool:
        """Whether nothing that runs can be scheduled before its grammar is compiled; each will nudge."""
        running, _ = self._scheduler.get_request_counts()
        return running == 0 and all(r.use_structured_output for r in self._scheduler.requests.values())
