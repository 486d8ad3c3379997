"""The engine as vLLM's serving classes want it: requests go to the thread that owns it, outputs come back to the loop.
Lives in one loop. Knows requests as tokens; no HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from functools import partial
from itertools import count
from typing import Any, Final

from vllm.outputs import RequestOutput
from vllm.renderers.inputs.preprocess import extract_prompt_components
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.llm_engine import LLMEngine

from worker import metrics
from worker.engine.owner import Owner
from worker.engine.places import Places
from worker.serving import errors, starts
from worker.serving.asks import ASKED, Ask, Reason, Stream
from worker.serving.desk import Asked, Desk, Given

EXPECTED: Final = 256  # tokens that an answer is taken to have, where it may have more, until it has them


class Client:
    """An `EngineClient` of vLLM's by its shape: what its serving classes use of one, and no more. Constructed on the
    engine's thread; used in the loop that answers. `ended` is told, on the engine's thread, what ended it."""

    def __init__(
        self,
        engine: LLMEngine,
        places: Places,
        owner: Owner,
        limit: int,
        model: str,
        ended: Callable[[BaseException], None],
    ) -> None:
        self.vllm_config, self.model_config = engine.vllm_config, engine.model_config
        self.renderer, self.input_processor = engine.renderer, engine.input_processor
        self.desk = Desk(engine, places, limit, model, self._tell, self._end, owner.post)
        self._owner, self._model, self._ended = owner, model, ended
        self._tasks = engine.get_supported_tasks()
        self._open: dict[Stream, Asked] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = count()
        self._gone = False

    @property
    def errored(self) -> bool:
        return self._gone or self._owner.failed is not None

    @property
    def dead_error(self) -> BaseException:
        return errors.engine_failed()

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self._open

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """Who finds no room is told by its stream, before its answer has begun."""

    def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams,
        *_: Any,
        **__: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs of a rendered prompt, for the `Ask` of this context, which says whatever else matters. Everything
        that its sender could have done wrong is raised here, before anything is queued."""
        ask = ASKED.get()
        if self.errored:
            raise self.dead_error
        # Ids of the engine's are its own: a request that is sent again may meet itself.
        name = f"{ask.request}/{next(self._numbers)}"
        request = self.input_processor.process_inputs(name, prompt, sampling_params, supported_tasks=self._tasks)
        self.input_processor.assign_request_id(request)
        self._check_length(ask, request)
        asked = Asked(Stream(ask), request, extract_prompt_components(self.model_config, prompt).text)
        asked.start = self._start(ask, request)
        self._loop = asked.stream.loop
        self._open[asked.stream] = asked
        ask.streams.append(asked.stream)
        cost = len(request.prompt_token_ids) + asked.params.n * min(asked.params.max_tokens, EXPECTED)
        self._owner.post(partial(self.desk.add, asked, cost))
        return self._outputs(asked)

    def end(self, ask: Ask, reason: Reason, error: errors.Refused | None = None) -> None:
        """Whatever of `ask` is under way ends, its streams with `error`."""
        for stream in ask.streams:
            self._end_stream(stream, reason, error)

    def end_all(self, reason: Reason, error: errors.Refused) -> None:
        for ask in {stream.ask for stream in self._open}:
            self.end(ask, reason, error)

    async def _outputs(self, asked: Asked) -> AsyncGenerator[RequestOutput, None]:
        try:
            async for output in asked.stream:
                yield output
        finally:
            self._end_stream(asked.stream, "client")

    def _end_stream(self, stream: Stream, reason: Reason, error: errors.Refused | None = None) -> None:
        if (asked := self._open.pop(stream, None)) is not None and not stream.ended:
            stream.fail(error or asyncio.CancelledError())
            self._owner.post(partial(self.desk.abort, asked, reason))

    def _check_length(self, ask: Ask, request: EngineCoreRequest) -> None:
        """vLLM would silently generate less than what was asked for."""
        prompt, context = len(request.prompt_token_ids), self.model_config.max_model_len
        if ask.most is not None and prompt + ask.most > context:
            message = f"The prompt has {prompt} tokens and at most {ask.most} more were asked for; together that is"
            code = "context_length_exceeded"
            raise errors.invalid(f"{message} more than the model's {context}.", "max_tokens", code)

    def _start(self, ask: Ask, request: EngineCoreRequest) -> int:
        """From which token on the adapter acts."""
        if ask.wears is None:
            return 0
        start = starts.start(request.prompt_token_ids, ask.wears.layout)
        if start is None:
            raise errors.invocation_missing(self.renderer.get_tokenizer().decode(ask.wears.layout.invocation))
        return start

    def _tell(self, given: list[Given]) -> None:
        """On the engine's thread."""
        if given and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(self._hand_on, given)

    def _hand_on(self, given: list[Given]) -> None:
        for one in given:
            if one.error is not None:
                one.stream.fail(one.error)
            elif not one.stream.give(one.output, one.last) and (asked := self._open.get(one.stream)) is not None:
                self._owner.post(partial(self.desk.abort, asked, "slow_reader"))
                one.stream.ask.cut()
            if one.stream.ended:
                self._open.pop(one.stream, None)

    def _end(self, error: BaseException) -> None:
        """On the engine's thread: it has ended."""
        self._gone = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._fail_all)
        self._ended(error)

    def _fail_all(self) -> None:
        """Those too whose request the engine has not heard of: what was posted last is lost."""
        for stream in self._open:
            stream.fail(errors.engine_failed())
        metrics.serve_aborts.labels(self._model, "engine").inc(len(self._open))
        self._open.clear()
