"""Blocks as text."""

from __future__ import annotations

import math

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import linear
from mtl_deploy.bench.blocks.blocks import Column, Ends, Estimate, Figure, Name, Phrase, Sentence, Table
from mtl_deploy.bench.blocks.plots import Line, LinePlot
from mtl_deploy.bench.blocks.terminal import render

FOUND = At({"ms": {"value": 12.3456, "low": 11.0, "high": 13.5}, "share": 0.941, "calls": 72, "none": None})


def test_a_table_has_the_terminals_columns_and_ends() -> None:
    columns = [Column("part"), Column("ms", ends="interval"), Column("share, %"), Column("calls", only="page")]
    rows = [
        [
            Name("backbone", 0),
            Estimate(FOUND["ms"], "ms"),
            Figure(FOUND["share"], "percentage"),
            Figure(FOUND["calls"]),
        ],
        ["head", Estimate(FOUND["none"], "ms"), Figure(FOUND["none"], "percentage"), Figure(FOUND["calls"])],
    ]
    assert render([Table("Parts", columns, rows)]) == [
        "part         ms  interval        share, %\n"
        "--------  -----  --------------  --------\n"
        "backbone  12.35  11.00 to 13.50      94.1\n"
        "head        n/a                       n/a"
    ]


def test_sentences_have_their_figures_and_plots_are_left_out() -> None:
    plot = LinePlot([Line("a", [(1, 2, math.nan, math.nan)], 0)], linear([0, 1]), linear([0, 2]), "a", "x", "y")
    told = Sentence(["Of ", Figure(FOUND["calls"], "count"), " calls (", Ends(FOUND["ms"], "ms"), " ms)."])
    assert render([plot, told, Sentence(["on a page"], only="page")]) == ["Of 72 calls (11.00 to 13.50 ms)."]
    assert render([Sentence([Ends(FOUND["none"])])]) == ["n/a"]


def test_a_phrase_is_one_cell() -> None:
    row = [Phrase(["Conv ", Figure(FOUND["share"], "percentage"), ", MatMul ", Figure(FOUND["none"])])]
    assert render([Table("", [Column("operators, %")], [row])])[0].splitlines()[-1] == "Conv 94.1, MatMul n/a"
