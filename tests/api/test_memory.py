"""What an upload and a count take of the API's memory: peak resident size of a process of its own, for the tokenizer's
memory is not Python's."""

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
# Prints by how many MiB the peak grew. `rows` is the file, made piece by piece.
COUNTED = """
import sys
from dataclasses import replace
from api import token_counts
from db.contract.rows.files import check, parse
from db.contract.rows.jsonl import BadRow
from db.contract.tokens.base_model import open_base
from tests.api.test_memory import FILES

def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024

def count(rows):
    counting = token_counts.counting(base, rows)
    while True:
        try:
            next(counting)
        except StopIteration as end:
            return end.value

base = replace(open_base("tiny", sys.argv[2]), context=4096)
count(parse([b'{"prompt": "a", "completion": "b"}']))
open("/proc/self/clear_refs", "w").write("5")  # the peak is what is resident now
before = peak()
if sys.argv[3] == "count":
    print(count(parse(FILES[sys.argv[1]]())), file=sys.stderr)
else:
    try:
        print(check(FILES[sys.argv[1]]()), file=sys.stderr)
    except BadRow as error:
        print(error, file=sys.stderr)
print(peak() - before)
"""


def many_choices():
    """Case 7: 600 rows of 64 choices on prompts of some 2,000 tokens, 4.8 MiB."""
    for i in range(600):
        prompt = "the film was a great and moving story about a small town " * 120 + str(i)
        yield (b'{"prompt": "%s", "choices": [' % prompt.encode()) + b", ".join(b'" %d"' % j for j in range(64))
        yield b'], "label": 1}\n'


def without_a_joint():
    """The same where no space lets a prompt be cut."""
    for i in range(20):
        yield (b'{"prompt": "%s%d", "choices": [' % (b"xyz" * 1200, i)) + b", ".join(b'"%d"' % j for j in range(64))
        yield b'], "label": 1}\n'


def long_lines():
    """Lines as long as they may be: too many tokens for any model, and the first to be read says so."""
    for kind in (b"a b ", b"\\u00e9", b"x"):
        yield b'{"prompt": "' + kind * ((1 << 20) // len(kind) - 40) + b'", "completion": "b"}\n'


def many_rows():
    """40 MiB."""
    for _ in range(40):
        yield b'{"prompt": "a", "completion": "the film was great"}\n' * (MIB // 53)


def many_tools():
    """Thirty rows of 200 kB of tools each, 6 MiB: rendered, and refused by a base that shows none."""
    tool = b'{"function": {"name": "f", "description": "%s"}}' % (b"a great film " * 40)
    for _ in range(30):
        yield b'{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "tools": ['
        yield b", ".join([tool] * 350) + b"]}\n"


def all_bad():
    """140,000 bad rows, of which five are told."""
    for _ in range(8):
        yield b'{"messages": [], "id": "7"}\n' * 17_500


FILES = {f.__name__: f for f in (many_choices, without_a_joint, long_lines, many_rows, many_tools, all_bad)}


@pytest.mark.parametrize(
    "file, what, most",
    [
        ("many_choices", "count", 48),
        ("without_a_joint", "count", 48),
        ("long_lines", "count", 384),
        ("many_choices", "check", 32),
        ("many_rows", "check", 32),
        ("long_lines", "check", 32),
        ("many_tools", "count", 48),
        ("many_tools", "check", 32),
        ("all_bad", "check", 32),
    ],
)
def test_a_file_takes_a_bounded_part_of_the_memory(file, what, most, base_folder: Path):
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, file, str(base_folder), what], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < most, done.stdout
