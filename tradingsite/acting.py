"""The API where it acts. Orders are sent by the trading process alone: a signal or a close is asked of it here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from knox.auth import TokenAuthentication
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound, ParseError, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from ml.api import PredictionViewSet
from ml.asking import NobodyToAsk, ask, newest_features, values_of
from ml.features import MODEL_FEATURES, Feature, Kind
from ml.models import Prediction, TradeFeatures
from ml.predictor import ModelUnusable
from positions.api import InstructionSerializer, InstructionViewSet, OpenPositionViewSet
from positions.books import NAME, is_at_alpaca
from positions.halting import Halt, halt, halted, resume
from positions.instructions import Asked, Plan, ask_close, ask_signal
from positions.models import LIVE_STATUSES, Instruction, Trade
from positions.words import LONGEST_REASON, SYMBOL, Side
from tradingsite.idempotency import HEADER, KEY, Answer, Contradiction, answered, keyed, once
from tradingsite.kit.api import StrictView, serializer_of
from tradingsite.kit.fields import NumberField, PatternField, PriceField, StrictSerializer, SwitchField, TextField
from tradingsite.kit.permissions import needs
from tradingsite.kit.throttling import ActThrottle
from tradingsite.known_books import why_not_known


class NotNow(APIException):
    status_code = 409
    default_code = "not_now"


class NotWritten(APIException):
    status_code = 503
    default_code = "not_written"


def key_header(*, required: bool) -> OpenApiParameter:
    text = "A key of your own making: a request that is sent again with it acts once, and is answered the same."
    pattern = {"type": "string", "pattern": f"^{KEY}$"}
    return OpenApiParameter(HEADER, pattern, OpenApiParameter.HEADER, required=required, description=text)


class BookSerializer(StrictSerializer):
    book = PatternField(
        NAME.pattern, required=False, help_text="One that has traded here. Without it, that of the BOOK setting."
    )

    def validate_book(self, book: str) -> str:
        why_not = why_not_known(book)
        if why_not:
            raise NotFound(why_not)
        return book


class HaltSerializer(BookSerializer):
    reason = TextField(max_length=LONGEST_REASON, trim_whitespace=False, allow_blank=True, default="")
    flatten = SwitchField(default=False, help_text="Close every open trade that the rules watch, too.")


class HaltedSerializer(serializers.Serializer[Any]):
    """Whether entries of a book are blocked, and by whom, since when and why."""

    book = serializers.CharField()
    halted = serializers.BooleanField()
    by = serializers.CharField(allow_null=True)
    at = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    flatten = serializers.BooleanField()


class CloseSerializer(StrictSerializer):
    reason = TextField(max_length=LONGEST_REASON, trim_whitespace=False, allow_blank=True, default="")


class SignalSerializer(StrictSerializer):
    symbol = PatternField(SYMBOL)
    side = serializers.ChoiceField([side.value for side in Side])
    stop = PriceField()
    target = PriceField()
    reason = TextField(max_length=LONGEST_REASON, trim_whitespace=False, allow_blank=True, default="")
    idempotency_key = PatternField(KEY, required=False, help_text=f"For who cannot send the header {HEADER}.")
    secret = TextField(
        max_length=256, trim_whitespace=False, required=False, help_text="An API token, for who cannot send the header."
    )


#: Models compute in single precision.
LARGEST = 1e30


def _field_of(feature: Feature) -> "serializers.Field[Any, Any, Any, Any]":
    may_lack = feature.name not in ("side", "p_geometry", "reward_to_risk")
    if feature.kind is Kind.CATEGORICAL:
        return serializers.ChoiceField(list(feature.categories), allow_null=may_lack)
    low = -LARGEST if feature.low is None else feature.low
    high = LARGEST if feature.high is None else feature.high
    return NumberField(min_value=low, max_value=high, allow_null=may_lack, help_text=feature.unit)


#: Every feature that models see; null where it is not known.
FeaturesSerializer = type(
    "FeaturesSerializer", (StrictSerializer,), {feature.name: _field_of(feature) for feature in MODEL_FEATURES}
)


class ByFeaturesSerializer(StrictSerializer):
    features = FeaturesSerializer()


class BySymbolSerializer(StrictSerializer):
    symbol = PatternField(SYMBOL, help_text="The features of its newest signal.")


class PredictedSerializer(serializers.Serializer[Any]):
    """What the champion says of features. `signal_key` and `signal_at` name the signal whose features were taken."""

    book = serializers.CharField()
    model = serializers.CharField()
    may_filter = serializers.BooleanField(help_text="whether the mode `filter` lets it block a signal")
    overridden = serializers.BooleanField(help_text="it serves without having passed its gate")
    p_win = serializers.FloatField(help_text="calibrated probability of a WIN")
    p_geometry = serializers.FloatField(help_text="the plan's own odds on a random walk, the baseline")
    threshold = serializers.FloatField(allow_null=True, help_text="P(win) above which a trade of this plan pays")
    decision = serializers.CharField()
    reason = serializers.CharField()
    signal_key = serializers.CharField(allow_null=True)
    signal_at = serializers.DateTimeField(allow_null=True)


def _told(request: Request, serializer: type[StrictSerializer]) -> Mapping[str, Any]:
    told = serializer(data=request.data)
    told.is_valid(raise_exception=True)
    values: Mapping[str, Any] = told.validated_data
    return values


def _asked(request: Request, told: Mapping[str, Any]) -> Asked:
    return Asked(request.user.get_username(), timezone.now(), told["reason"])


def _answer_of(instruction: Instruction) -> Answer:
    return 202, InstructionSerializer(instruction).data


def _trading_book() -> str:
    if not is_at_alpaca(settings.BOOK):
        raise NotNow(f"BOOK={settings.BOOK} is no account at Alpaca, and nobody trades it; set BOOK=paper:<account>.")
    return settings.BOOK


@contextmanager
def _written() -> Iterator[None]:
    """Around what moves the kill switch. Raises NotWritten."""
    try:
        yield
    except OSError as error:
        raise NotWritten(f"Nothing was changed, the kill switch cannot be written: {error.strerror}.") from error


class HaltView(StrictView):
    """Block entries of a book until it is resumed; exits, stops and breakeven go on."""

    permission_classes = (needs("positions.halt_trading"),)
    throttle_classes = (ActThrottle,)

    @extend_schema(request=HaltSerializer, responses=HaltedSerializer, parameters=[key_header(required=False)])
    def post(self, request: Request) -> HttpResponse:
        told = _told(request, HaltSerializer)
        book = told.get("book", settings.BOOK)

        def act() -> Answer:
            with _written():
                halt(book, Halt(request.user.get_username(), timezone.now(), told["reason"], told["flatten"]))
            return 200, _halt_of(book)

        return once(keyed(request, told, required=False), act)


class ResumeView(StrictView):
    """Allow entries of a book again."""

    permission_classes = (needs("positions.halt_trading"),)
    throttle_classes = (ActThrottle,)

    @extend_schema(request=BookSerializer, responses=HaltedSerializer, parameters=[key_header(required=False)])
    def post(self, request: Request) -> HttpResponse:
        told = _told(request, BookSerializer)
        book = told.get("book", settings.BOOK)

        def act() -> Answer:
            with _written():
                resume(book, request.user.get_username())
            return 200, _halt_of(book)

        return once(keyed(request, told, required=False), act)


def _halt_of(book: str) -> dict[str, Any]:
    told = halted(book)
    if told is None:
        return {"book": book, "halted": False, "by": None, "at": None, "reason": "", "flatten": False}
    return {"book": book, "halted": True, "by": told.by, "at": told.at, "reason": told.reason, "flatten": told.flatten}


class PositionViewSet(OpenPositionViewSet):
    @extend_schema(
        request=CloseSerializer, responses={202: InstructionSerializer}, parameters=[key_header(required=True)]
    )
    @action(
        ["POST"],
        detail=True,
        permission_classes=[needs("positions.close_position")],
        throttle_classes=[ActThrottle],
    )
    def close(self, request: Request, symbol: str) -> HttpResponse:
        """Have the trade of the BOOK setting that is open in a symbol now closed at the market by the trading process,
        or its entry given up."""
        told = _told(request, CloseSerializer)

        def act() -> Answer:
            book = _trading_book()
            trade = Trade.objects.filter(book=book, symbol=symbol, status__in=LIVE_STATUSES).first()
            if trade is None:
                raise NotFound(f"{book} holds no position in {symbol}.")
            return _answer_of(ask_close(trade, _asked(request, told)))

        return once(keyed(request, told, required=True), act)


class TokenInBody(TokenAuthentication):  # type: ignore[misc]  # knox has no types
    """For who cannot send headers, as TradingView's alerts cannot: an API token as `secret` in the body."""

    def authenticate(self, request: Request) -> Any:
        try:
            told = request.data
        except (ParseError, UnsupportedMediaType):
            return None
        secret = told.get("secret") if isinstance(told, dict) else None
        return self.authenticate_credentials(secret.encode(errors="replace")) if isinstance(secret, str) else None


class SignalView(StrictView):
    """Have a plan considered as the strategy's own signals are: its features are stored, its odds predicted, and it is
    entered unless model, protections or size are against it."""

    authentication_classes = (TokenAuthentication, SessionAuthentication, TokenInBody)
    permission_classes = (needs("positions.send_signal"),)
    throttle_classes = (ActThrottle,)

    @extend_schema(
        request=SignalSerializer,
        responses={202: InstructionSerializer},
        parameters=[key_header(required=False)],
        auth=[{"knoxApiToken": []}, {"cookieAuth": []}, {}],  # type: ignore[list-item]  # what OpenAPI wants
    )
    def post(self, request: Request) -> HttpResponse:
        told = _told(request, SignalSerializer)
        plan = Plan(Side(told["side"]), told["stop"], told["target"])
        if (plan.stop < plan.target) is not (plan.side is Side.LONG) or plan.stop == plan.target:
            raise Contradiction("The stop of a long lies below its target, that of a short above it.")

        def act() -> Answer:
            return _answer_of(ask_signal(_trading_book(), told["symbol"], plan, _asked(request, told)))

        return once(keyed(request, told, required=True), act)


class AskedPredictionViewSet(PredictionViewSet):
    def get_permissions(self) -> Sequence[Any]:
        return [needs("ml.ask_model")()] if self.action == "create" else super().get_permissions()

    def get_throttles(self) -> list[BaseThrottle]:
        return [ActThrottle()] if self.action == "create" else super().get_throttles()

    @extend_schema(
        request=PolymorphicProxySerializer("Asked", [ByFeaturesSerializer, BySymbolSerializer], None),
        responses={200: PredictedSerializer},
        parameters=[key_header(required=False)],
    )
    def create(self, request: Request) -> HttpResponse:
        """Ask the champion of the BOOK setting about features, or about those of a symbol's newest signal. Nothing is
        stored among the predictions: no signal was given."""
        by_symbol = isinstance(request.data, Mapping) and "symbol" in request.data
        told = _told(request, BySymbolSerializer if by_symbol else ByFeaturesSerializer)
        asked = keyed(request, told, required=False)
        before = answered(asked)
        if before is not None:
            return before
        predicted = _predict(told)  # not under `once`: loading a model takes longer than others wait for a lock
        return once(asked, lambda: (200, predicted))


def _predict(told: Mapping[str, Any]) -> dict[str, Any]:
    book, row = settings.BOOK, None
    features = told.get("features")
    if features is None:
        row = newest_features(book, told["symbol"])
        if row is None:
            raise NotFound(f"{book} has no signal of {told['symbol']} of late.")
        features = values_of(row)
    try:
        opinion = ask(book, features)
    except (NobodyToAsk, ModelUnusable) as error:
        raise NotNow(f"{error}.", code="no_model") from error
    model, score = opinion.model, opinion.score
    return {
        "book": book,
        "model": model.version,
        "may_filter": model.may_filter,
        "overridden": model.overridden,
        "p_win": score.p_win,
        "p_geometry": score.p_geometry,
        "threshold": score.threshold,
        "decision": score.decision.value,
        "reason": score.reason,
        "signal_key": row.signal_key if row else None,
        "signal_at": row.signal_at if row else None,
    }


class InstructionDetailSerializer(InstructionSerializer):
    """With what it led to: the signal's features and what each model said of it, as soon as they are stored."""

    features = serializers.SerializerMethodField()
    predictions = serializers.SerializerMethodField()

    def get_features(self, row: Instruction) -> dict[str, Any] | None:
        found = TradeFeatures.objects.filter(book=row.book, signal_key=row.signal_key).first()
        return serializer_of(TradeFeatures)(found).data if found else None

    def get_predictions(self, row: Instruction) -> list[dict[str, Any]]:
        found = Prediction.objects.filter(book=row.book, signal_key=row.signal_key)
        return [serializer_of(Prediction)(each).data for each in found]


class AnsweredInstructionViewSet(InstructionViewSet):
    def get_serializer_class(self) -> type[InstructionSerializer]:
        return InstructionDetailSerializer if self.detail else InstructionSerializer
