"""A trained model as text that is safe to load: base64 of [HMAC-SHA256 || pickle of plain values].

The signature is verified before a byte is parsed, and the unpickler then refuses every global, so that neither an
altered row nor a leaked key can make loading run code.
"""

import base64
import hashlib
import hmac
import io
import pickle
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NoReturn

LARGEST = 32 * 2**20  # characters; a hundred trees of depth 6 take half a million
SIGNATURE_BYTES = hashlib.sha256().digest_size


class Refusal(StrEnum):
    TOO_LARGE = "too large"
    ALTERED = "altered"
    OTHER_KEY = "other key"
    GLOBALS = "globals"
    NOT_A_MODEL = "not a model"
    OTHER_FEATURE_SET = "other feature set"


class ArtifactRefused(Exception):
    """An artifact that must not be used; `reason` is the word, the message the sentence."""

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Artifact:
    """What serving needs. `scorer` is what the algorithm's `to_bytes` gave (XGBoost's UBJSON); `encoder`, `calibrator`
    and `payoff` are their `to_dict`."""

    feature_set: str
    algorithm: str
    scorer: bytes
    encoder: dict[str, Any]
    calibrator: dict[str, Any]
    payoff: dict[str, float] | None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise ArtifactRefused(Refusal.GLOBALS, f"the artifact names {module}.{name}; a model holds plain values only")


def _signature(payload: bytes, key: str) -> bytes:
    return hmac.new(key.encode(), payload, hashlib.sha256).digest()


def fingerprint(text: str) -> str:
    """SHA-256 of the artifact's text, stored beside it."""
    return hashlib.sha256(text.encode()).hexdigest()


def seal(artifact: Artifact, key: str) -> str:
    """Equal artifacts give equal text: the pickle is written without a memo, which would tell equal from same."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.fast = True
    pickler.dump({field.name: getattr(artifact, field.name) for field in fields(artifact)})
    payload = buffer.getvalue()
    return base64.b64encode(_signature(payload, key) + payload).decode()


def unseal(text: str, *, key: str, sha256: str, feature_set: str) -> Artifact:
    """Open an artifact whose fingerprint, signature and feature set are as expected. Raises ArtifactRefused."""
    if len(text) > LARGEST:
        raise ArtifactRefused(Refusal.TOO_LARGE, f"the artifact has {len(text):,} characters; at most {LARGEST:,} load")
    if not hmac.compare_digest(fingerprint(text).encode(), sha256.encode()):
        raise ArtifactRefused(
            Refusal.ALTERED, "the artifact was altered: its SHA-256 is not the one stored with it; train a new one"
        )
    try:
        sealed = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ArtifactRefused(Refusal.ALTERED, f"the artifact is not base64: {error}") from error
    signature, payload = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(payload, key)):
        raise ArtifactRefused(
            Refusal.OTHER_KEY,
            "the artifact was not signed with this site's MODEL_SIGNING_KEY: set the key it was signed with, or train "
            "a new one",
        )
    try:
        artifact = Artifact(**_PlainUnpickler(io.BytesIO(payload)).load())
    except (pickle.UnpicklingError, EOFError, TypeError) as error:
        raise ArtifactRefused(Refusal.NOT_A_MODEL, f"the artifact does not hold a model: {error}") from error
    if artifact.feature_set != feature_set:
        raise ArtifactRefused(
            Refusal.OTHER_FEATURE_SET,
            f"the model was trained on feature set {artifact.feature_set}, this program computes {feature_set}: "
            "train a new one",
        )
    return artifact
