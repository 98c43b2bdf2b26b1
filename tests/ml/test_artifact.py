"""Stored models: what was altered, foreign or dangerous is refused before it is parsed."""

import base64
import hashlib
import hmac
import os
import pickle

import pytest

from ml import artifact as module
from ml.artifact import Artifact, ArtifactRefused, Refusal, fingerprint, seal, unseal

KEY = "k" * 50
MODEL = Artifact(
    feature_set="0123456789abcdef",
    algorithm="xgboost",
    scorer=bytes(range(256)) * 8,
    encoder={"names": ["rsi14"], "mean": [50.0], "scale": [12.5], "categories": {"side": ["long", "short"]}},
    calibrator={"method": "platt", "slope": 0.8, "intercept": -0.1},
    payoff={"win": 0.1, "win_per_reward": 0.9, "loss": 1.0, "band": 0.01},
)


def opened(text, **changed):
    return unseal(text, **{"key": KEY, "sha256": fingerprint(text), "feature_set": MODEL.feature_set, **changed})


def signed(payload: bytes) -> str:
    """What an attacker who knows the key could store."""
    return base64.b64encode(hmac.new(KEY.encode(), payload, hashlib.sha256).digest() + payload).decode()


def test_what_was_sealed_is_opened():
    assert opened(seal(MODEL, KEY)) == MODEL


def test_equal_models_have_equal_text_even_where_their_parts_are_other_objects():
    copied = Artifact(
        feature_set="".join(list(MODEL.feature_set)),
        algorithm="".join(list(MODEL.algorithm)),
        scorer=bytes(bytearray(MODEL.scorer)),
        encoder={
            "names": ["rsi" + str(14)],
            "mean": [50.0],
            "scale": [12.5],
            "categories": {"side": ["long", "short"]},
        },
        calibrator={"method": "platt", "slope": 0.8, "intercept": -0.1},
        payoff=dict(MODEL.payoff),
    )
    assert seal(copied, KEY) == seal(MODEL, KEY)


@pytest.mark.parametrize("place", [0, 31, 32, 100, -1])
def test_one_altered_byte_is_refused_whether_or_not_the_fingerprint_was_altered_too(place):
    sealed = bytearray(base64.b64decode(seal(MODEL, KEY)))
    sealed[place] ^= 1
    text = base64.b64encode(sealed).decode()
    with pytest.raises(ArtifactRefused) as altered:
        opened(text, sha256=fingerprint(seal(MODEL, KEY)))
    with pytest.raises(ArtifactRefused) as resigned:
        opened(text)
    assert (altered.value.reason, resigned.value.reason) == (Refusal.ALTERED, Refusal.OTHER_KEY)


def test_a_model_signed_with_another_key_is_refused():
    with pytest.raises(ArtifactRefused, match="MODEL_SIGNING_KEY") as refused:
        opened(seal(MODEL, "another key"))
    assert refused.value.reason is Refusal.OTHER_KEY


def test_a_model_of_another_feature_set_is_refused():
    with pytest.raises(ArtifactRefused, match="train a new one") as refused:
        opened(seal(MODEL, KEY), feature_set="fedcba9876543210")
    assert refused.value.reason is Refusal.OTHER_FEATURE_SET


class Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_bomb_does_not_go_off_even_when_signed_with_the_right_key(tmp_path):
    crater = tmp_path / "crater"
    payload = pickle.dumps(Bomb(f"touch {crater}"))
    with pytest.raises(ArtifactRefused, match="system") as refused:
        opened(signed(payload))
    assert refused.value.reason is Refusal.GLOBALS
    assert not crater.exists()
    assert pickle.loads(payload) == 0  # it was a live one
    assert crater.exists()


def test_an_unsigned_pickle_is_refused_before_a_byte_of_it_is_parsed():
    with pytest.raises(ArtifactRefused) as refused:
        opened(base64.b64encode(b"\x00" * 32 + b"not a pickle at all").decode())
    assert refused.value.reason is Refusal.OTHER_KEY


@pytest.mark.parametrize(
    "payload", [b"", b"garbage", pickle.dumps(7), pickle.dumps({"payoff": 1}), pickle.dumps([1, 2])[:-3]]
)
def test_signed_nonsense_is_refused_as_no_model(payload):
    with pytest.raises(ArtifactRefused) as refused:
        opened(signed(payload))
    assert refused.value.reason is Refusal.NOT_A_MODEL


@pytest.mark.parametrize("text", ["", "not base64!", "ümlaut", "QUJD"])
def test_text_that_is_no_artifact_is_refused(text):
    with pytest.raises(ArtifactRefused):
        opened(text)


def test_a_monstrous_text_is_refused_unread():
    with pytest.raises(ArtifactRefused) as refused:
        opened("A" * (module.LARGEST + 1))
    assert refused.value.reason is Refusal.TOO_LARGE
