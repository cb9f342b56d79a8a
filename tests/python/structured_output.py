"""Checks that guided texts are what they must be: schemas by `jsonschema`, expressions by `re`, many at once beside free texts.

Usage: structured_output.py HTTP_ADDRESS
"""

import json
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema

REFERENCES = json.loads(
    (Path(__file__).parent.parent / "fixtures/ferris/reference.json").read_text()
)
# Ferris has never seen JSON, and would rather indent than go on.
COMPACT = {"x-guidance": {"whitespace_flexible": False}}


def record(**properties):
    """The schema of an object that has these and nothing else."""
    required = list(properties)
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


WORD = {"type": "string", "minLength": 1, "maxLength": 8}
DIGIT = {"type": "integer", "minimum": -9, "maximum": 9}
LEAF = {"$ref": "#/$defs/leaf"}
# All of them bounded: what has no end is cut off where the tokens end.
SCHEMAS = [
    record(name=WORD, age={"type": "integer", "minimum": 0, "maximum": 130}),
    {"type": "array", "items": {"enum": ["move", "copy", "borrow"]}, "minItems": 2, "maxItems": 5},
    {"anyOf": [record(ok={"const": True}), {"type": "null"}]},
    record(
        id={"type": "string", "format": "uuid"},
        code={"type": "string", "pattern": "^E0[0-9]{3}$"},
    ),
    record(point={"type": "array", "prefixItems": [DIGIT, DIGIT], "items": False, "minItems": 2}),
    {**record(left=LEAF, right=LEAF), "$defs": {"leaf": record(leaf={"type": "boolean"})}},
    record(outer=record(inner=WORD), share={"enum": [0.25, 0.5, 1]}),
]
EXPRESSIONS = [
    r"[a-z]{2,6}(-[a-z]{2,6})*\.rs",
    r"v\d{1,2}\.\d{1,2}\.\d{1,2}",
    r"(yes|no), because [a-z ]{5,20}\.",
]
CHOICES = ["stack", "heap", "static storage"]


def check_schema(schema):
    """Expects JSON that a schema describes, formats included."""
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=formats)
    return lambda text: validator.validate(json.loads(text))


def check(name, holds):
    """Expects a text of which something holds."""

    def checked(text):
        assert holds(text), f"{name}: {text!r}"

    return checked


def cases():
    """Everything that is asked for, and what is expected of each answer."""
    for seed, reference in enumerate(REFERENCES):
        free = {"text_input": reference["prompt"], "max_tokens": 64}
        expected = reference["greedy_text"]
        yield free, check("reference", lambda text, expected=expected: text == expected)
        # Drawn, so that no two are alike.
        drawn = {**free, "max_tokens": 300, "temperature": 1.3, "random_seed": seed}

        def guided(kind, guide):
            return {**drawn, "guided_decoding_guide_type": kind, "guided_decoding_guide": guide}

        for schema in SCHEMAS:
            yield guided("json_schema", json.dumps({**schema, **COMPACT})), check_schema(schema)
        for expression in EXPRESSIONS:
            matches = re.compile(expression, re.ASCII).fullmatch
            yield guided("regex", expression), check(expression, matches)
        yield guided("choice", json.dumps(CHOICES)), check("choice", CHOICES.__contains__)


def generate(address, body):
    """The text that `generate` answers with."""
    request = urllib.request.Request(f"http://{address}/generate", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)["text_output"]


def main():
    """Asks for everything, sixteen at once."""
    with ThreadPoolExecutor(16) as pool:
        asked = [(pool.submit(generate, sys.argv[1], body), test) for body, test in cases()]
        for answer, test in asked:
            test(answer.result())


if __name__ == "__main__":
    main()
