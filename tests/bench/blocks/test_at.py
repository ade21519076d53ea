"""Values that know where in the result they stand."""

from __future__ import annotations

from mtl_deploy.bench.blocks.at import At


def test_pointers_are_escaped() -> None:
    at = At({"a/b~c": {"value": 1}})["a/b~c"]["value"]
    assert at.path == "/a~1b~0c/value"
    assert at.value == 1
    assert not At(None)["missing"][3]["more"]


def test_what_is_missing_reads_as_nothing() -> None:
    at = At({"batches": [{"batch": 8, "energy": None}]})
    assert [batch["batch"].value for batch in at["batches"]] == [8]
    assert at.down(("batches", "energy")).path == "/batches/energy"
    assert not at["batches"][0]["energy"]["further"]
    assert list(at["batches"][1]["energy"]) == []
