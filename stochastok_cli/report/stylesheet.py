"""The style of the page: light and dark, wide and narrow, and on paper."""

CSS = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1b; --soft: #5c5c5c; --rule: #d5d5d5; --grid: #e4e4e4;
  --panel: #f6f6f4; --right: #00684a; --wrong: #a8320b; --link: #005a94; --mark: #fbe3d6; --shade: #0004;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; --c6: #000; }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --text: #e6e4df; --soft: #a5a39e; --rule: #3b3e45;
  --grid: #2d3036; --panel: #1f2227; --right: #4fd0a4; --wrong: #ff9a73; --link: #7cc0f5; --mark: #5a2f1e;
  --shade: #fff5;
  --c0: #3d94d6; --c1: #f0743a; --c2: #2cc295; --c3: #e391bd; --c4: #f0b93a; --c5: #93d3f7; --c6: #fff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; max-width: 1060px;
  margin: 0 auto; padding: 1.5rem 1rem 3rem; color: var(--text); background: var(--back); overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .5rem; border-top: 2px solid var(--text); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption, .note { color: var(--soft); font-size: .87rem; }
a { color: var(--link); }
code { font: .86em ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.note { margin: .15rem 0; }
h1 + p { max-width: none; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .8rem 0 0; }
div.wide { overflow-x: auto; margin: .4rem 0; }
/* A shadow at an edge behind which there is more: covers, which scroll with the content, hide it at the ends. */
.wide { background:
  linear-gradient(to right, var(--back) 50%, transparent) left / 3rem calc(100% + 2px) no-repeat local,
  linear-gradient(to left, var(--back) 50%, transparent) right / 3rem calc(100% + 2px) no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / .9rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) right / .9rem 100% no-repeat scroll; }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--back); }
table { border-collapse: collapse; font-size: .87rem; line-height: 1.35; }
th, td { padding: .32rem .65rem; text-align: right; vertical-align: top; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { border-bottom: 1.5px solid var(--text); vertical-align: bottom; font-weight: 600; overflow-wrap: break-word;
  max-width: 11rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere;
  min-width: 7rem; }
th.name, td.name { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
td small { display: block; color: var(--soft); font-size: .8rem; }
table.text th { max-width: none; }
table.text { table-layout: fixed; width: 100%; }
table.text th, table.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.text th:first-child, table.text td:first-child { width: 13rem; color: var(--soft); font-weight: 400; }
figure { margin: 1.2rem 0; min-width: 0; }
figure svg { display: block; max-width: 100%; height: auto; color: var(--text); }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif !important; }
figure .wide { overflow-x: auto; margin: 0; }
figcaption { max-width: 46rem; margin-top: .2rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.2rem 1.6rem;
  align-items: start; }
.grid figure { margin: 0; }
.columns { columns: 26rem 2; column-gap: 1.6rem; }
.columns figure { break-inside: avoid; margin: 0 0 1.4rem; }
.curves > .grid { display: none; }
.curves > input { position: absolute; opacity: 0; pointer-events: none; }
.curves > label { display: inline-block; padding: .25rem .8rem; margin: .2rem .3rem .9rem 0; font-size: .87rem;
  border: 1px solid var(--rule); border-radius: 1rem; cursor: pointer; }
.curves > input:checked + label { background: var(--text); color: var(--back); border-color: var(--text); }
.curves > input:focus-visible + label { outline: 2px solid var(--link); outline-offset: 2px; }
.curves > .x-iteration:checked ~ .of-iteration, .curves > .x-tokens:checked ~ .of-tokens,
.curves > .x-time:checked ~ .of-time { display: grid; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .6rem 0;
  font-size: .87rem; }
.legend li { overflow-wrap: anywhere; min-width: 0; }
.legend svg, .who svg { vertical-align: middle; margin-right: .35rem; color: var(--text); }
.question { border: 1px solid var(--rule); border-radius: 6px; padding: .6rem .8rem; background: var(--panel); }
.question p { margin: 0 0 .35rem; }
.question .ask, .sample { white-space: pre-wrap; overflow-wrap: anywhere; }
.question ul { list-style: none; margin: .4rem 0 0; padding: 0; }
.question li { padding: .28rem 0; border-top: 1px solid var(--rule); overflow-wrap: anywhere; }
.question li.key > .option { font-weight: 600; }
.question li > .option { white-space: pre-wrap; }
.who { display: inline-block; margin: 0 0 0 .7rem; font-size: .84rem; white-space: nowrap; max-width: 100%;
  overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; }
.tokens span, .tokens mark { border: 1px solid var(--rule); border-radius: 3px; padding: .05rem 0; color: inherit;
  background: none; -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.tokens mark { background: var(--mark); border-color: var(--wrong); }
.right { color: var(--right); } .wrong { color: var(--wrong); }
.sample { border-left: 3px solid var(--rule); margin: .5rem 0; padding: .1rem 0 .1rem .8rem; max-width: 46rem; }
@media (max-width: 640px) {
  body { padding: 1rem .75rem 2rem; }
  table, tbody, thead, tr, td { display: block; width: auto; }
  thead { font-weight: 600; padding-bottom: .3rem; }
  th, th:first-child { display: inline; border: 0; padding: 0; max-width: none; }
  table.text th:first-child, table:not(.text) th + th { display: none; }
  th + th:not(:last-child)::after { content: ", "; }
  td, table.text td { border: 0; padding: .1rem 0 .1rem .8rem; white-space: normal; }
  td:first-child, table.text td:first-child { width: auto; padding: .5rem 0 .1rem; border-top: 1px solid var(--rule); }
  td[data-column]::before { content: attr(data-column) ": "; color: var(--soft); }
  table:not(.text) { max-width: 24rem; }
  table:not(.text) td:first-child { font-weight: 600; }
  table:not(.text) td[data-column] { display: flex; gap: .5rem; align-items: baseline; overflow-wrap: anywhere; }
  table:not(.text) td[data-column]::before { content: attr(data-column); flex: 1; text-align: left; }
  table:not(.text) td[data-column]:empty { display: none; }
  td small { white-space: nowrap; }
  figure .wide svg { min-width: 34rem; }
}
@media print {
  :root { color-scheme: light; --back: #fff; --text: #000; --soft: #444; --rule: #bbb; --grid: #e4e4e4;
    --panel: #fff; --right: #00684a; --wrong: #a8320b; --link: #000; --mark: #fbe3d6;
    --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; --c6: #000; }
  @page { margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  nav, .curves > label, .curves > input { display: none; }
  h1, h2, h3, h2 + p, h3 + .note, .legend, thead { break-after: avoid; }
  tr:nth-child(-n+3):not(:last-child) { break-after: avoid; }
  tr:nth-last-child(-n+3):not(:first-child) { break-before: avoid; }
  h1, h2, h3, h2 + p, .note, figure, .question, table.short, tr, .sample { break-inside: avoid; }
  .grid { grid-template-columns: 1fr 1fr; gap: .8rem 1rem; }
  .columns { columns: auto; display: flow-root; }
  .columns figure { float: left; clear: left; width: 48.5%; }
  .columns figure:nth-child(even) { float: right; clear: right; }
  div.wide { overflow: visible; } .wide { background: none; }
  table { font-size: 8.5pt; } th, td { padding: .2rem .4rem; }
  td { white-space: normal; } td small { white-space: nowrap; }
  td.name { min-width: 4rem; }
  .wide th:first-child, .wide td:first-child { position: static; background: none; }
  a { text-decoration: none; }
}
"""
