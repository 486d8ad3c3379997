"""What a model cannot take, said before anything is computed. Knows trials and a model's sizes; no engine."""

from collections.abc import Mapping, Sequence

from worker.types import Example, Layout, Trial


class TrialCheck:
    """Checks trials for one model: `modules` are the linears an adapter may act on, name to (inputs, outputs),
    `max_rank` the highest rank, `context` the longest sequence, `vocab` the number of token ids."""

    def __init__(self, modules: Mapping[str, tuple[int, int]], max_rank: int, context: int, vocab: int) -> None:
        self.modules, self.max_rank, self.context, self.vocab = modules, max_rank, context, vocab
        self._known: set[Layout] = set()

    def __call__(self, trials: Sequence[Trial]) -> None:
        """Raises ValueError for a trial that the model cannot take: unknown module or shape, rank too high, sequence
        too long, token out of range, an adapter that would not start where its example says, derivatives."""
        seen: set[int] = set()  # the same rows come once a probe
        for trial in trials:
            if trial.differentiated:
                raise ValueError("this engine has no autograd: derivatives are the torch scorer's")
            if id(trial.examples) not in seen:
                for example in trial.examples:
                    self._check_tokens(example)
                    self._check_places(example)
                seen.add(id(trial.examples))
            if trial.params is not None:
                self._check_start(trial)
                self._check_probe(trial)

    def _check_tokens(self, example: Example) -> None:
        for ids in example.sequences:
            if not 0 < len(ids) <= self.context:
                raise ValueError(f"a sequence has {len(ids)} tokens; the model takes 1 to {self.context}")
            if ids.min() < 0 or ids.max() >= self.vocab:
                raise ValueError(f"a token id is outside the vocabulary of {self.vocab}")
        for c in example.candidates:
            if len(c.targets) and (c.targets.min() < 0 or c.targets.max() >= self.vocab):
                raise ValueError(f"a target id is outside the vocabulary of {self.vocab}")

    @staticmethod
    def _check_places(example: Example) -> None:
        if not 0 <= example.start < min(map(len, example.sequences)):
            raise ValueError("an adapter starts inside its sequence")
        if len(example.sequences) > 1 and example.start > example.shared:
            raise ValueError("an adapter starts within what its sequences have in common")
        for c in example.candidates:
            if len(c.positions) and not (
                example.start <= c.positions.min() <= c.positions.max() < len(example.sequences[c.sequence])
            ):
                raise ValueError("a scored position lies outside its sequence, or before its adapter starts")

    @staticmethod
    def _check_start(trial: Trial) -> None:
        invocation = () if trial.layout is None else trial.layout.invocation
        for example in trial.examples:
            if example.start and not invocation:
                raise ValueError("an example says where its adapter starts, but the adapter acts on every token")
            at = example.sequences[0][example.start : example.start + len(invocation)]
            if invocation and tuple(at.tolist()) != invocation:
                raise ValueError("the adapter would start at other tokens than its invocation")

    def _check_probe(self, trial: Trial) -> None:
        if trial.layout is None or trial.params is None or trial.params.shape != (trial.layout.size,):
            raise ValueError("a probe's parameters do not fit its layout")
        if trial.layout in self._known:
            return
        if trial.layout.rank > self.max_rank:
            raise ValueError(f"rank {trial.layout.rank} exceeds this engine's {self.max_rank}")
        for m in trial.layout.modules:
            if self.modules.get(m.name) != (m.inputs, m.outputs):
                raise ValueError(f"the engine has no linear {m.name!r} of {m.inputs} inputs and {m.outputs} outputs")
        self._known.add(trial.layout)
