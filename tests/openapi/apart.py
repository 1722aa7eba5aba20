"""Prints a document in which no parameters exclude each other, since it has no words for that: those that do are asked for
one after the other. Whatever then fits the document has to be accepted.

apart.py DOCUMENT WORD..., where a word is a query parameter that stays, with `!` behind it one that has to be there, and
with `=VALUE` one that is always that. Others go. A header can be given a value too.
"""

import json
import sys

document_file, *words = sys.argv[1:]
with open(document_file, encoding="utf-8") as text:
    document = json.load(text)
values = dict(word.split("=", 1) for word in words if "=" in word)
needed = {word[:-1] for word in words if word.endswith("!")} | values.keys()
stay = needed | {word for word in words if word.isidentifier()}


def told(parameter):
    """The parameter itself, wherever it is written."""
    reference = parameter.get("$ref")
    return document["components"]["parameters"][reference.rsplit("/", 1)[1]] if reference else parameter


for path in document["paths"].values():
    for owner in (path, *(operation for operation in path.values() if isinstance(operation, dict))):
        kept = [p for p in owner.get("parameters", []) if told(p)["in"] != "query" or told(p)["name"] in stay]
        for parameter in map(told, kept):
            name = parameter["name"]
            if name in values:
                parameter["schema"] = {"const": values[name]}
            if name in needed and parameter["in"] == "query":
                parameter["required"] = True
        owner["parameters"] = kept
json.dump(document, sys.stdout)
