"""What the OpenAPI document says of `POST /v1/read`."""

from __future__ import annotations

from typing import Any

from crnn_deploy.serving.bodies import JsonImages
from crnn_deploy.serving.options import ReadOptions
from crnn_deploy.serving.problems import PROBLEM

__all__ = ["READ"]

_RESULT = {
    "name": "word.png",
    "text": "Hello",
    "confidence": 0.9934608936309814,
    "status": "ok",
    "error": None,
}
_ANSWER = {
    "model": "latin",
    "digest": "9f2c" + 60 * "0",
    "results": [_RESULT],
    "milliseconds": {"queued": 0.4, "total": 3.1},
}
_BOX = [[2, 2], [50, 2], [50, 18], [2, 18]]
_BOX_ANSWER = {
    **_ANSWER,
    "results": [
        {
            "name": "word.png",
            "box": 0,
            "text": "Hello",
            "confidence": 0.995947539806366,
            "status": "ok",
            "error": None,
            "polygon": _BOX,
        }
    ],
}
_FAILURES = {
    "400": "The body is broken or empty.",
    "401": "A token is missing or wrong.",
    "404": "No model has this name.",
    "408": "The body came too slowly.",
    "413": "The body is too large or has too many images.",
    "415": "A body of this type is not read.",
    "422": "An option is wrong, or no image of the request can be read.",
    "503": "The server is overloaded or stops; Retry-After says when to try again.",
}
_HELLO = (  # a picture of the word
    "iVBORw0KGgoAAAANSUhEUgAAADQAAAAUAQAAAADqryNwAAAARklEQVQI12P4DwYfGNDpv7//f6/HSj/8XmMPos99r5z/geEP87zy4vMg"
    "PoxuKC8H0/u/Q/jzofT5cpD6v78fgPXjsheNBgBCNnqvO8UrawAAAABJRU5ErkJggg=="
)
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def _parameters() -> list[dict[str, Any]]:
    model = {
        "name": "model",
        "in": "query",
        "required": False,
        "description": "Read with this model; without it, with the first that is served.",
        "schema": {"type": "string"},
    }
    properties = ReadOptions.model_json_schema()["properties"]
    return [
        model,
        *(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": schema.get("description", ""),
                "schema": {
                    key: value for key, value in schema.items() if key not in ("description", "title")
                },
            }
            for name, schema in properties.items()
        ),
    ]


def _answers() -> dict[str, Any]:
    number = {"type": "number"}
    text = {"type": "string"}
    result = {
        "type": "object",
        "required": ["name", "text", "confidence", "status", "error"],
        "properties": {
            "name": text,
            "box": {"type": ["integer", "null"], "minimum": 0},
            "text": text,
            "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "status": {"enum": ["ok", "low-confidence", "error"]},
            "error": {"type": ["string", "null"]},
            "polygon": {"type": ["array", "null"], "items": {"type": "array", "items": number}},
            "rotated": {"enum": [0, 90, 180, 270, "column", None]},
            "chars": {"type": "array", "items": {"type": "object"}},
            "alternatives": {
                "type": "array",
                "items": {"type": "object", "properties": {"text": text, "score": number}},
            },
        },
    }
    answer = {
        "type": "object",
        "required": ["model", "digest", "results", "milliseconds"],
        "properties": {
            "model": text,
            "digest": text,
            "results": {"type": "array", "items": result},
            "milliseconds": {"type": "object", "properties": {"queued": number, "total": number}},
        },
    }
    problem = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "request_id": text,
            "results": {"type": "array", "items": result},
        },
    }
    failures = {
        status: {"description": said, "content": {PROBLEM: {"schema": problem}}}
        for status, said in _FAILURES.items()
    }
    ok = {
        "description": "The text of each image or of each of its boxes, or an error in its place. `box` and "
        "`polygon` stand there where an image of the request has boxes.",
        "content": {
            "application/json": {
                "schema": answer,
                "examples": {"images": {"value": _ANSWER}, "boxes": {"value": _BOX_ANSWER}},
            }
        },
    }
    return {"200": ok, **failures}


def _body() -> dict[str, Any]:
    schema = JsonImages.model_json_schema()
    image = schema.pop("$defs")["JsonImage"]
    schema["properties"]["images"]["items"] = image
    whole = {"name": "word.png", "data": _HELLO}
    examples = {
        "images": {"value": {"images": [whole]}},
        "boxes": {"value": {"images": [{**whole, "boxes": [_BOX]}]}},
    }
    boxes = {
        "description": "The boxes of the image right before this part, as in JSON; without a file name.",
        "type": "array",
        "items": {"type": "string", "contentMediaType": "application/json"},
    }
    images = {"type": "array", "items": _BYTES["schema"]}
    files = {"type": "object", "properties": {"images": images, "boxes": boxes}}
    return {
        "required": True,
        "content": {
            "image/png": _BYTES,
            "image/jpeg": _BYTES,
            "application/octet-stream": _BYTES,
            "multipart/form-data": {"schema": files},
            "application/json": {"schema": schema, "examples": examples},
        },
    }


READ: dict[str, Any] = {"parameters": _parameters(), "requestBody": _body(), "responses": _answers()}
