"""vLLM's own OpenAI classes over our client: they render, validate and word the answers. Names, adapters, errors and
the wire are not theirs. Pinned with vLLM: what is overridden here is internal to it."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.lora.request import LoRARequest
from vllm.renderers.online_renderer import OnlineRenderer

from worker.serving import bodies, errors, vllm_grammars
from worker.serving.asks import ASKED, Ask
from worker.serving.vllm_client import Client

FORMAT: Final = "string"  # contents as training renders them, whatever a template would take
FAILED: Final = 'data: {"error"'
OWN: Final = frozenset({  # of vLLM's answers, and in nobody else's
    "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
    "stop_reason", "token_ids", "routed_experts", "prompt_routed_experts", "reasoning", "created_cache_tokens",
    "multimodal_tokens", "weight_versions", "sampling_mask",
})  # fmt: skip


def _unforeseen(record: logging.LogRecord) -> bool:
    """vLLM logs whatever ends a stream with a traceback; what is refused is no fault."""
    return record.exc_info is None or not isinstance(record.exc_info[1], errors.Refused)


class _Resolved:
    """Which model a request means was settled before it came to vLLM."""

    async def _check_model(self, _: Any) -> None:
        return None

    def _maybe_get_adapters(self, *_: Any, **__: Any) -> LoRARequest | None:
        """For the answer's `model` only: the place it will have is not known yet."""
        wears = ASKED.get().wears
        return None if wears is None else LoRARequest(wears.name, 1, wears.name)


class _Chat(_Resolved, OpenAIServingChat):  # type: ignore[misc]  # vllm is untyped here
    pass


class _Completion(_Resolved, OpenAIServingCompletion):  # type: ignore[misc]
    pass


class _Renderer(OnlineRenderer):  # type: ignore[misc]
    """Renders tools as they were sent: vLLM writes out what nobody said of them, and training does not."""

    async def preprocess_chat(self, request: Any, messages: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("tool_dicts"):
            kwargs["tool_dicts"] = [_said(tool) for tool in kwargs["tool_dicts"]]
        return await super().preprocess_chat(request, messages, *args, **kwargs)


class OpenAI:
    """Chat and completions of the model that `client` has, which answers call `name`. With a `tool_parser`, by vLLM's
    name for it, tools are taken."""

    def __init__(self, client: Client, name: str, tool_parser: str | None = None) -> None:
        vllm_grammars.install()
        for kind in (OpenAIServingChat, OpenAIServingCompletion):
            logging.getLogger(kind.__module__).addFilter(_unforeseen)
        self.tools = tool_parser is not None
        paths = [BaseModelPath(name=name, model_path=name)]
        models = OpenAIServingModels(engine_client=client, base_model_paths=paths)
        tools = {"enable_auto_tools": self.tools, "tool_parser": tool_parser}
        template = {"chat_template": None, "chat_template_content_format": FORMAT}
        renderer = _Renderer(client.model_config, client.renderer, request_logger=None, **template, **tools)
        common = {"online_renderer": renderer, "request_logger": None, "enable_prompt_tokens_details": True}
        self._chat = _Chat(client, models, "assistant", **common, **template, **tools)
        self._completion = _Completion(client, models, **common)

    async def chat(self, ask: Ask, said: dict[str, Any]) -> dict[str, Any] | AsyncGenerator[str, None]:
        """The answer to a body's fields: one object, or its events as they come, the first of which is there. Raises
        whatever `errors.refused` translates."""
        kept = self._prepared(ask, bodies.fields(said, bodies.CHAT))
        if kept.get("tools") and not self.tools:
            raise errors.invalid("This model takes no tools.", "tools", "unsupported_parameter")
        request = ChatCompletionRequest.model_validate(kept)
        ask.most = request.max_completion_tokens or request.max_tokens
        return await _begun(ask, await self._chat.create_chat_completion(request))

    async def completion(self, ask: Ask, said: dict[str, Any]) -> dict[str, Any] | AsyncGenerator[str, None]:
        """As `chat`."""
        kept = self._prepared(ask, bodies.fields(said, bodies.COMPLETIONS))
        request = CompletionRequest.model_validate(kept)
        ask.most = request.max_tokens if "max_tokens" in said else None
        return await _begun(ask, await self._completion.create_completion(request))

    def _prepared(self, ask: Ask, kept: dict[str, Any]) -> dict[str, Any]:
        ASKED.set(ask)
        return kept | {"request_id": ask.request, "cache_salt": ask.salt}


async def _begun(ask: Ask, answer: Any) -> dict[str, Any] | AsyncGenerator[str, None]:
    if isinstance(answer, ErrorResponse):
        raise errors.vllms(answer.model_dump()["error"])
    if not isinstance(answer, AsyncGenerator):
        plain: dict[str, Any] = _plain(answer.model_dump())
        return plain
    events = _events(ask, answer)
    first = await anext(events)
    return _chained(first, events)


async def _chained(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event


async def _events(ask: Ask, answer: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """vLLM's, up to an error: it would go on to say that it is done, which clients take for the end of an answer."""
    async with aclosing(answer):
        async for event in answer:
            if event.startswith(FAILED):
                raise ask.error or errors.vllms(json.loads(event.removeprefix("data: "))["error"])
            yield event


def _said(of: Any) -> Any:
    """Without what is None."""
    if isinstance(of, dict):
        return {name: _said(value) for name, value in of.items() if value is not None}
    return of


def _plain(answer: Any) -> Any:
    """Without what is vLLM's own."""
    if isinstance(answer, dict):
        return {name: _plain(value) for name, value in answer.items() if name not in OWN}
    return [_plain(value) for value in answer] if isinstance(answer, list) else answer
