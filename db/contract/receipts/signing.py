"""An installation's signature on a receipt: Ed25519 over DSSE's encoding, by securesystemslib. Knows keys, no receipt's
meaning.

A private key is 32 bytes in hexadecimal digits, as `openssl rand -hex 32` makes them; a public key likewise. To check
needs nothing else; to sign needs `cryptography`, which is where workers are.
"""

import hashlib
import re
from typing import TYPE_CHECKING, Final

from db.contract.receipts.form import Receipt, SignaturePart
from db.contract.receipts.refused import Refused

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE: Final = "application/vnd.onward.receipt+json"
KEY: Final = re.compile(r"[0-9a-f]{64}")


class WrongKey(ValueError):
    """What was given as a key is none; the message does not repeat it."""


def public_keys(text: str) -> tuple[str, ...]:
    """The public keys of a list with commas, spaces or newlines between them. Raises WrongKey."""
    found = tuple(dict.fromkeys(text.replace(",", " ").lower().split()))
    if any(KEY.fullmatch(key) is None for key in found):
        raise WrongKey("a public key of receipts has 64 hexadecimal digits")
    return found


def key_id(public: str) -> str:
    """What a signature says that it is by: the first 16 hexadecimal digits of the SHA-256 of the public key."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]


def public_of(secret: str) -> str:
    """The public key that belongs to a private one. Raises WrongKey, and ImportError where `cryptography` is not."""
    return str(_signer(secret).public_key.keyval["public"])


def signed(payload: bytes, secret: str) -> SignaturePart:
    """The signature of a receipt's payload. Raises WrongKey."""
    from securesystemslib.dsse import Envelope

    made = Envelope(payload, PAYLOAD_TYPE, {}).sign(_signer(secret))
    return SignaturePart(keyid=made.keyid, sig=made.signature)


def check(receipt: Receipt, trusted: tuple[str, ...]) -> str:
    """The id of the trusted key that the receipt is signed with. Raises Refused: `unsigned`, `unknown_key` where none
    of its signatures says to be by a trusted key, `signature` where one that does is not."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Signature

    if not receipt.signatures:
        raise Refused("unsigned", "it is not signed")
    keys = {key_id(public): _public(public) for public in trusted}
    known = [one for one in receipt.signatures if one.keyid in keys]
    if not known:
        said = ", ".join(one.keyid for one in receipt.signatures)
        raise Refused("unknown_key", f"it is signed by {said}, which is not among the {len(keys)} trusted keys")
    for one in known:
        envelope = Envelope(receipt.payload, PAYLOAD_TYPE, {one.keyid: Signature(one.keyid, one.sig)})
        try:
            envelope.verify([keys[one.keyid]], 1)
        except VerificationError:
            raise Refused("signature", f"its signature is not that of {one.keyid} on what it says") from None
    return known[0].keyid


def _public(public: str) -> "SSlibKey":
    from securesystemslib.signer import SSlibKey

    return SSlibKey(key_id(public), "ed25519", "ed25519", {"public": public})


def _signer(secret: str) -> "CryptoSigner":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    digits = secret.strip().lower()
    if KEY.fullmatch(digits) is None:
        raise WrongKey("the private key of receipts has 64 hexadecimal digits (openssl rand -hex 32)")
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(digits))
    return CryptoSigner(private, _public(private.public_key().public_bytes_raw().hex()))
