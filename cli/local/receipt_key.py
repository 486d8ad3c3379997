"""The private key that an installation signs receipts with, in a file that only its owner reads."""

import os
import secrets
from pathlib import Path

from cli.client import Failure
from db.contract.receipts.signing import WrongKey, public_of

FILE, VARIABLE = "receipt.key", "ONWARD_RECEIPT_KEY"


def kept(file: Path) -> tuple[str, str]:
    """The private and the public key; `file` is made where there is none. Raises Failure where it holds no key."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = file.read_text(encoding="ascii", errors="replace").strip()
    else:
        secret = secrets.token_hex(32)
        with os.fdopen(handle, "w") as out:
            out.write(secret + "\n")
    try:
        return secret, public_of(secret)
    except WrongKey as error:
        raise Failure(f"{file}: {error}") from None
    except ModuleNotFoundError as error:
        raise Failure(f"keys need what is not here: {error.name}", "run it in the worker's image") from None


def of_home(home: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What the worker and the API of the service in `home` are told of a key of its own; nothing where a variable or a
    file of secrets names one."""
    folder = os.environ.get("ONWARD_SECRETS_DIR")
    if VARIABLE in os.environ or (folder and (Path(folder) / VARIABLE.lower()).is_file()):
        return {}, {}
    secret, public = kept(home / FILE)
    return {VARIABLE: secret}, {"ONWARD_RECEIPT_SIGNERS": public}
