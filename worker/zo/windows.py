"""Windows of rank inside an adapter: which rows of A and columns of B each has. Knows numbers only, no matrix."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Windows:
    """Windows of `width` rows, one every `nu` steps, in an adapter of `rank`: each goes to the next rows, and when all
    floor(rank / width) places are taken they are taken again in turn. `frozen`: all are the first place's."""

    rank: int
    width: int
    nu: int
    frozen: bool = False

    @property
    def places(self) -> int:
        """Windows that there is room for."""
        return 1 if self.frozen else self.rank // self.width

    def empty(self, window: int) -> bool:
        """Whether window number `window`, from 0, is the first at its place."""
        return window < self.places

    def place(self, window: int) -> slice:
        """Rows of A, columns of B, of window number `window`."""
        begin = (window % self.places) * self.width
        return slice(begin, begin + self.width)
