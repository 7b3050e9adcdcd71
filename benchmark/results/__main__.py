"""``python -m avbench.results`` prints the JSON Schema of ``run.json``."""

from avbench.results.run import json_schema_text

if __name__ == "__main__":
    print(json_schema_text(), end="")
