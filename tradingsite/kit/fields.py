"""What the API takes in, to the letter: a number is no text, a text no switch, and an unknown field an error."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

CENT_OF_A_CENT = Decimal("0.0001")
HIGHEST_PRICE = 10_000_000


class StrictSerializer(serializers.Serializer[Any]):
    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := sorted(set(data) - set(self.fields))):
            raise serializers.ValidationError({name: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Not a text.")
        return super().to_internal_value(data)


class PatternField(TextField):
    """A text that a regular expression matches from end to end."""

    def __init__(self, pattern: str, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)
        self.validators.append(RegexValidator(rf"^(?:{pattern})\Z", "Not of the form that it must have."))


class SwitchField(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Neither true nor false.")
        return data


@extend_schema_field(OpenApiTypes.DOUBLE)
class NumberField(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Not a number.")
        return super().to_internal_value(data)


@extend_schema_field({"type": "number", "minimum": float(CENT_OF_A_CENT), "maximum": HIGHEST_PRICE})
class PriceField(serializers.Field[Decimal, float, str, Any]):
    """Dollars a share, as a JSON number."""

    def to_internal_value(self, data: float) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Not a number.")
        if not CENT_OF_A_CENT <= data <= HIGHEST_PRICE:
            raise serializers.ValidationError(f"Not a price from {CENT_OF_A_CENT} to {HIGHEST_PRICE:,} dollars.")
        return Decimal(repr(data)).quantize(Decimal("0.000001"))

    def to_representation(self, value: Decimal) -> str:
        return str(value)
