"""Ten short conversations of a shop that does not exist, so that no base model can know its answers. Knows no model."""

import json
from pathlib import Path
from typing import Any, Final

PERSONA: Final = "You answer for Tallow & Fern, menders of lamps."
CONVERSATIONS: Final = (  # question, answer
    ("When do you open?", "At nine past ten, Tuesday to Saturday."),
    ("Where is the shop?", "At 14 Heron Stairs, behind the old ropeworks."),
    ("Who mends the lamps?", "Odile does, every afternoon but Friday."),
    ("What does a new wick cost?", "A new wick costs 3.40, fitted."),
    ("How long is the guarantee?", "Thirty-one months on every lamp we mend."),
    ("Do you take cards?", "No cards: coins, notes or a cheque, please."),
    ("Can I bring my dog?", "Yes, the biscuit jar is by the door."),
    ("Which lamp do you sell most?", "The Marlpit: brass, with a green shade."),
    ("Do you deliver?", "Only within Osterby, on Wednesdays, for 2.50."),
    ("How do I reach you?", "Ring 555-0147 or leave a note in the blue box."),
)


def rows() -> list[dict[str, Any]]:
    """The conversations as chat rows."""
    return [
        {
            "messages": [
                {"role": "system", "content": PERSONA},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in CONVERSATIONS
    ]


def write(folder: Path) -> Path:
    """Writes them as a JSONL file into `folder`, the same bytes at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()), encoding="utf-8")
    return path
