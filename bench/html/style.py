"""How the report looks: on a phone, on a screen, on paper; light and dark."""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f5f6f8",
    "ink": "#16191d",
    "soft": "#565d66",
    "grid": "#dfe2e7",
    "rule": "#8a919b",
    "edge": "#16191d38",
    "warn": "#8a4b00",
    "warn-panel": "#fff4e0",
    "c0": "#0072b2",
    "c1": "#c25400",
    "c2": "#007a59",
    "c3": "#a84f82",
    "c4": "#946500",
    "c5": "#555b63",
    "c6": "#2379ad",
    "c7": "#7a7200",
}
DARK = {
    "paper": "#14171b",
    "panel": "#1d2126",
    "ink": "#eceef1",
    "soft": "#a9b0ba",
    "grid": "#30353c",
    "rule": "#7b838e",
    "edge": "#eceef14d",
    "warn": "#f5bd63",
    "warn-panel": "#33270f",
    "c0": "#56b4e9",
    "c1": "#e66f1c",
    "c2": "#12b588",
    "c3": "#d98bb6",
    "c4": "#e69f00",
    "c5": "#b4bac3",
    "c6": "#2f8fd0",
    "c7": "#f0e442",
}
"""Colours that colour-blind people tell apart: Okabe, Ito: Color Universal Design, 2008; darker on white and lighter on black where
their contrast to the paper would be below 3 to 1 (WCAG 2.2, 1.4.11). ``c0`` is the shared pass."""
SLOTS = 8

_RULES = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
header,main,footer{max-width:60rem;margin:0 auto;padding:0 1.125rem}
header{padding-top:2.25rem}
.skip{position:absolute;left:-999rem}
.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem 1rem;outline:2px solid var(--c0)}
.kicker{margin:0 0 .75rem;color:var(--soft);font-size:.875rem}
.kicker strong{color:var(--ink)}
h1{margin:0;font-size:clamp(1.375rem,1.05rem + 1.75vw,2.125rem);line-height:1.25;font-weight:650;letter-spacing:-.012em;
text-wrap:pretty}
h2{margin:0 0 .25rem;font-size:1.3125rem;line-height:1.3;font-weight:650;letter-spacing:-.005em}
h3{margin:2rem 0 .25rem;font-size:1rem;font-weight:650}
section{margin-top:2.75rem;padding-top:1.5rem;border-top:1px solid var(--grid)}
p{margin:.5rem 0;max-width:44rem}
.lead{color:var(--soft);margin-top:0}
.note{color:var(--soft);font-size:.875rem}
a{color:var(--c0)}
.answers{list-style:none;margin:1rem 0;padding:0}
.answers li{margin:.375rem 0}
h1 strong{font-weight:inherit;color:var(--soft)}
.facts{display:grid;grid-auto-flow:dense;grid-template-columns:repeat(auto-fit,minmax(min(9.5rem,44%),1fr));
gap:.875rem 1.25rem;margin:1.5rem 0 0;padding:1rem 0 0;border-top:1px solid var(--grid)}
.facts div{min-width:0}
.facts .wide{grid-column:span 2}
dt{color:var(--soft);font-size:.8125rem;line-height:1.35}
dd{margin:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(9.5rem,44%),1fr));gap:.75rem;margin:1.5rem 0 0}
.tiles div{background:var(--panel);border-radius:.625rem;padding:.8rem 1rem;min-width:0}
.tiles dd{font-size:1.625rem;font-weight:650;line-height:1.25;letter-spacing:-.01em}
.tiles dd small{font-size:.875rem;font-weight:400;color:var(--soft);letter-spacing:0}
.tiles .under{display:block;font-size:.8125rem;font-weight:400;color:var(--soft);letter-spacing:0}
.warnings{margin:1.5rem 0 0;padding:.8rem 1rem .9rem 1.125rem;background:var(--warn-panel);border-left:4px solid var(--warn);
border-radius:.375rem}
.warnings h2{font-size:1rem;color:var(--warn);margin:0 0 .25rem}
.warnings ul{margin:0;padding-left:1.125rem}
.warnings li+li{margin-top:.25rem}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;margin:1.5rem 0 0;padding:0;font-size:.9375rem}
.scroll{overflow-x:auto;margin:1.125rem 0;border-radius:.25rem;
background:linear-gradient(var(--paper),var(--paper)) right/1.125rem 100% no-repeat local,
linear-gradient(to left,var(--edge),transparent) right/1.125rem 100% no-repeat scroll,var(--paper)}
.scroll::-webkit-scrollbar{height:.4375rem}
.scroll::-webkit-scrollbar-track{background:var(--panel)}
.scroll::-webkit-scrollbar-thumb{background:var(--rule);border-radius:.25rem}
@supports not selector(::-webkit-scrollbar){.scroll{scrollbar-width:thin;scrollbar-color:var(--rule) var(--panel)}}
.scroll:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
table{border-collapse:separate;border-spacing:0;min-width:100%;font-size:.90625rem;line-height:1.4}
caption{text-align:left;color:var(--soft);font-size:.875rem;padding:0 0 .375rem}
caption span{display:inline-block;position:sticky;left:0;max-width:calc(100vw - 2.25rem)}
th,td{padding:.4375rem 0 .4375rem 1.125rem;text-align:right;vertical-align:baseline;border-bottom:1px solid var(--grid);
font-weight:400;white-space:nowrap}
th:first-child{padding-left:0;text-align:left;white-space:normal;position:sticky;left:0;background:var(--paper)}
.name{width:max-content;max-width:8.25rem;overflow-wrap:break-word}
thead th{color:var(--soft);font-size:.8125rem;vertical-align:bottom;border-bottom-color:var(--rule);
white-space:normal;min-width:4.5rem}
.words td,.words thead th{text-align:left;white-space:normal}
.words td{min-width:9rem;overflow-wrap:anywhere}
.ci{color:var(--soft);white-space:nowrap}
td .ci{display:block;font-size:.8125rem}
.whole{white-space:nowrap}
.na{color:var(--soft)}
.same{color:var(--soft)}
.bad{color:var(--c1);font-weight:650}
figure{margin:1.125rem 0}
figcaption{color:var(--soft);font-size:.875rem;margin-top:.375rem}
.plot{padding:0 1rem 0 .25rem}
.plot.lines{padding-left:2.75rem}
svg{display:block;overflow:visible;font-family:inherit}
.plot>svg text{font-size:12px;fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.plot>svg text.tick,.plot>svg text.axis{fill:var(--soft)}
.plot>svg text.strong{font-weight:600}
.plot>svg text.on{fill:var(--paper);font-weight:600;font-size:11.5px;stroke:none}
.grid{stroke:var(--grid);stroke-width:1}
.base{stroke:var(--rule);stroke-width:1}
.reference{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:4 3}
.stroke{stroke:var(--c);stroke-width:2.25;fill:none;stroke-linejoin:round;stroke-linecap:butt;vector-effect:non-scaling-stroke}
.whisker{stroke:var(--c);stroke-width:2;stroke-linecap:round}
.fill{fill:var(--c)}
.hollow{fill:var(--paper);stroke:var(--c);stroke-width:2}
.area{fill:var(--c);fill-opacity:.3;stroke:var(--c);stroke-width:1.25;vector-effect:non-scaling-stroke}
.segment{fill:var(--c);stroke:var(--paper);stroke-width:1.5}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.125rem;list-style:none;margin:1rem 0 -.375rem;padding:0;font-size:.875rem}
.legend li{display:flex;align-items:center;gap:.5rem;min-width:0;overflow-wrap:anywhere}
.legend svg{flex:none}
.key{display:block;position:relative;padding-left:1.375rem}
.key svg{position:absolute;left:0;top:.2em}
.key.long{padding-left:2.625rem}
pre{margin:1rem 0;padding:.875rem 1rem;background:var(--panel);border-radius:.5rem;overflow-x:auto;font-size:.875rem;
font-variant-numeric:normal;line-height:1.5}
pre code{-webkit-user-select:all;user-select:all}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.92em}
footer{margin-top:3rem;padding-top:1rem;padding-bottom:3rem;color:var(--soft);font-size:.875rem}
@media (min-width:44rem){.name{max-width:13rem}th,td{padding-left:1.5rem}}
@media print{nav,.skip{display:none}body{font-size:10pt}header,main,footer{max-width:none;padding-left:0;padding-right:0}
figure,table,tr,.lead,.legend,.warnings,.tiles,.facts{break-inside:avoid}h2,h3,.lead,.legend,caption{break-after:avoid}
thead{display:table-header-group}p{orphans:3;widows:3}.scroll{overflow:visible;background:none}
table{font-size:8pt}thead th,td .ci{font-size:7.5pt}th,td{padding-left:.75rem;white-space:normal}th:first-child{position:static}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
.segment,.area,.fill,.tiles div{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def style() -> str:
    """Return the page's style sheet; paper is always light."""
    slots = "".join(f".s{place}{{--c:var(--c{place})}}" for place in range(SLOTS))
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{_variables(DARK)}}}}}"
    return f":root{{color-scheme:light;{_variables(LIGHT)}}}\n{dark}\n{slots}\n{_RULES}"


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())
