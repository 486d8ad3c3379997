"""Places on the real engine: what is needed stays, what is not needed goes, and nothing of it is left behind."""

from dataclasses import replace

import numpy as np
import pytest
from vllm import SamplingParams

from tests.worker.scoring.cases import layout, probe
from tests.worker.scoring.conftest import SERVE_SLOTS, Pair
from tests.worker.serving.generated import Asked, Peft, admitted, prompt, served
from worker.engine.places import NotHeld
from worker.types import Wearable


def made(pair: Pair, name: str, seed: int, rank: int = 8, *targets: str) -> Wearable:
    shape = layout(pair.modules, rank, 2.0 * rank, *targets)
    return Wearable(name, shape, probe(np.random.default_rng(seed), shape))


def test_more_adapters_than_places_wait_and_every_answer_is_its_own(pair: Pair) -> None:
    """Twice as many adapters as places, of mixed ranks and modules, each asked for twice, while a stream goes on that
    wears one of them throughout. Who finds no place is told, and asks again once another gives his back."""
    engine, oracle, rng = pair.vllm.engine, Peft(pair.path), np.random.default_rng(41)
    kinds = [(8, ()), (1, ("q_proj",)), (4, ("q_proj", "v_proj")), (2, ()), (8, ("k_proj",)), (3, ())]
    worn = [made(pair, f"many@{n}", n, rank, *targets) for n, (rank, targets) in enumerate(kinds)]
    asked = [Asked(prompt(rng, 12 + n), w, count=8) for n, w in enumerate([*worn, *worn])]
    stream = Asked(prompt(rng, 20), made(pair, "stream@0", 50), count=110)
    evicted, most = engine.places.evicted, 0
    admitted(engine, stream)
    waiting, running, answers, refused = list(range(len(asked))), {}, {}, 0
    while len(answers) <= len(asked):
        for number in list(waiting):
            if engine.places.take(asked[number].wearable) is None:
                refused += 1
                continue
            running[admitted(engine, asked[number])] = number
            engine.places.give(asked[number].wearable.name)  # taken twice: admitting takes, too
            waiting.remove(number)
        most = max(most, len(engine.places.pinned))
        assert None in answers or "stream@0" in engine.places.pinned
        for output in engine.step():
            if output.finished:
                key = running.pop(output.request_id, None)
                answers[key] = list(output.outputs[0].token_ids)
                engine.places.give((stream if key is None else asked[key]).wearable.name)
    assert [answers[n] for n in range(len(asked))] == [oracle.generated(one) for one in asked]
    assert answers[None] == oracle.generated(stream)
    assert refused > 0
    assert engine.places.evicted - evicted >= len(worn) - SERVE_SLOTS + 1
    assert most == SERVE_SLOTS
    assert engine.places.pinned == ()


def test_what_is_pinned_is_never_evicted(pair: Pair) -> None:
    places = pair.vllm.engine.places
    mine = [made(pair, f"pin@{n}", n) for n in range(SERVE_SLOTS)]
    requests = [places.take(w) for w in mine]
    again = places.take(mine[0])
    assert again is requests[0]
    other = made(pair, "other@0", 99)
    assert places.take(other) is None
    places.give("pin@0")
    assert places.take(other) is None, "it was taken twice"
    places.give("pin@0")
    taken = places.take(other)
    assert taken is not None
    assert taken.lora_int_id not in {r.lora_int_id for r in requests}
    assert set(places.held) == {"pin@1", "pin@2", "other@0"}
    back = places.take(mine[0])
    assert back is None
    for name in ("pin@1", "pin@2", "other@0"):
        places.give(name)
    back = places.take(mine[0])
    assert back.lora_int_id not in {taken.lora_int_id, *(r.lora_int_id for r in requests)}, "an id is never used twice"
    places.give("pin@0")
    with pytest.raises(NotHeld):
        places.give("pin@0")
    with pytest.raises(NotHeld):
        places.give("nobody@0")


def test_who_has_no_place_is_refused_and_the_streams_of_others_go_on(pair: Pair) -> None:
    """In vLLM the same request would raise out of this step and all that follow."""
    engine, oracle, rng = pair.vllm.engine, Peft(pair.path), np.random.default_rng(42)
    stream = Asked(prompt(rng, 15), made(pair, "safe@0", 1))
    name, base = admitted(engine, stream), Asked(prompt(rng, 9))
    other = admitted(engine, base)
    engine.step()
    gone = made(pair, "gone@0", 2)
    adapter = engine.places.take(gone)
    engine.places.give("gone@0")
    evict = [made(pair, f"evict@{n}", n) for n in range(SERVE_SLOTS - 1)]
    for one in evict:
        assert engine.places.take(one) is not None
    assert "gone@0" not in engine.places.held
    with pytest.raises(NotHeld):
        engine.add_request("late", prompt(rng, 5), SamplingParams(max_tokens=2), adapter)
    outputs: dict[str, list[int]] = {}
    while len(outputs) < 2:
        for output in engine.step():
            if output.finished:
                outputs[output.request_id] = list(output.outputs[0].token_ids)
    for one in (*evict, stream.wearable):
        engine.places.give(one.name)
    assert outputs == {name: oracle.generated(stream), other: oracle.generated(base)}


def test_nothing_of_the_last_adapter_is_left_in_a_place(pair: Pair) -> None:
    """All linears at the highest rank, in every place; then few at the lowest."""
    engine, oracle, rng = pair.vllm.engine, Peft(pair.path), np.random.default_rng(43)
    large = [made(pair, f"large@{n}", n) for n in range(SERVE_SLOTS)]
    served(engine, [Asked(prompt(rng, 8), w, count=2) for w in large])
    small = [made(pair, f"small@{n}", n, 1, "v_proj") for n in range(SERVE_SLOTS)]
    asked = [Asked(prompt(rng, 8 + n), w) for n, w in enumerate(small)]
    assert served(engine, asked) == [oracle.generated(one) for one in asked]
    assert set(engine.places.held) == {w.name for w in small}
    for a, b in engine.places._stacks.values():
        assert not a[:, 1:].any()
        assert not b[:, :, 1:].any()


def test_what_the_model_cannot_wear_is_refused_and_takes_no_place(pair: Pair) -> None:
    places = pair.vllm.engine.places
    held = places.held
    good = made(pair, "good@0", 1, 2, "q_proj")
    module = good.layout.modules[0]
    wrong = [
        (replace(good, params=good.params[:-1]), "parameters"),
        (replace(good, layout=replace(good.layout, modules=(replace(module, name="model.nothing"),)),
                 params=good.params[: 2 * (module.inputs + module.outputs)]), "no linear"),
        (replace(good, layout=replace(good.layout, modules=(replace(module, inputs=module.inputs - 1),)),
                 params=good.params[: 2 * (module.inputs - 1 + module.outputs)]), "inputs"),
        (made(pair, "wide@0", 1, 16, "q_proj"), "its rank is 16"),
    ]  # fmt: skip
    for wearable, says in wrong:
        with pytest.raises(ValueError, match=says):
            places.take(wearable)
    assert places.held == held
    assert places.pinned == ()
