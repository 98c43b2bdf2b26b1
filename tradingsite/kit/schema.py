"""What drf-spectacular cannot know of this API: its errors, and that unknown fields and empty values are refused."""

from typing import Any

from tradingsite.kit.filters import LARGEST_ID

PROBLEM = {
    "type": "object",
    "description": "An error, as RFC 9457 has it. `code` is for programs, `detail` for people, `errors` by field.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    },
    "required": ["type", "title", "status", "code", "detail"],
}
EVERYWHERE = {
    "400": "A parameter or a field is unknown, or its value cannot be.",
    "401": "The token is missing, wrong or expired.",
    "403": "The user lacks the permission.",
    "406": "The answer does not come in what the request accepts.",
    "429": "Asked too often; Retry-After says when to ask again.",
}
OF_ROWS = {"404": "There is no such thing."}
OF_ACTS = {
    "404": "There is no such thing.",
    "409": "It cannot be done as things are.",
    "415": "The body is no JSON.",
    "428": "It needs an idempotency key.",
    "422": "The fields contradict each other, or the idempotency key stands for another request.",
}


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A hook of drf-spectacular that comes last."""
    components = result["components"]["schemas"]
    components["Problem"] = PROBLEM
    for name, schema in components.items():
        if name.endswith("Request") and schema.get("type") == "object":
            schema["additionalProperties"] = False
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "book":
                    parameter["description"] = "Whose rows; without it, those of the BOOK setting."
                schema = parameter["schema"]
                if schema["type"] == "string":
                    schema.setdefault("minLength", 1)
                elif parameter["in"] == "query":
                    schema.setdefault("minimum", 0)
                    schema.setdefault("maximum", LARGEST_ID)
            more = OF_ACTS if method == "post" else OF_ROWS if "{" in path else {}
            for status, text in {**EVERYWHERE, **more}.items():
                content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
                operation["responses"][status] = {"description": text, "content": content}
    return result


#: The edges of what databases keep integers in.
_COLUMN_ENDS = {sign * 2**bits - (sign > 0) for bits in (15, 31, 63) for sign in (1, -1)}


def forget_the_database(result: Any, **_: Any) -> Any:
    """A number's bounds that are those of a database's column say nothing of the API, and differ between databases."""
    if isinstance(result, dict):
        if result.get("type") == "integer":
            result.pop("format", None)
            for bound in ("minimum", "maximum"):
                if result.get(bound) in _COLUMN_ENDS:
                    del result[bound]
        for part in result.values():
            forget_the_database(part)
    elif isinstance(result, list):
        for part in result:
            forget_the_database(part)
    return result
