"""How the report looks: light and dark as the reader's system is, narrow and wide, and on paper."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --soft: #f6f8fa;
  --ok: #116329; --warn: #7d4e00; --fail: #a40e26; --ok-back: #dafbe1; --warn-back: #fff8c5; --fail-back: #ffebe9; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --dim: #9198a1; --line: #30363d;
  --soft: #161b22; --ok: #7ee787; --warn: #f2cc60; --fail: #ffa198; --ok-back: #12261e; --warn-back: #272115;
  --fail-back: #2d1a1c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 1rem 0 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
header p, .dim { color: var(--dim); }
.state { font-size: 1.1rem; }
.wide { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; min-width: 60%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; min-width: 4rem; max-width: 34rem; }
td:last-child { min-width: 12rem; }
time { white-space: nowrap; }
.pairs thead { display: none; }
.pairs td:first-child { color: var(--dim); white-space: nowrap; }
code, pre { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
article { border-left: 3px solid var(--line); padding-left: .9rem; margin: 1rem 0; }
article h3 { margin-top: 0; }
.mark { display: inline-block; padding: 0 .45em; border-radius: 4px; font-weight: 600; background: var(--soft);
  color: var(--dim); }
.ok { color: var(--ok); background: var(--ok-back); }
.warn { color: var(--warn); background: var(--warn-back); }
.fail { color: var(--fail); background: var(--fail-back); }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--dim); }
.plot { width: 100%; max-width: 46rem; height: auto; display: block; }
.plot text { font: 12px system-ui, sans-serif; fill: var(--dim); }
.plot .grid { stroke: var(--line); }
.plot .line { fill: none; stroke-width: 2; }
.plot .limit { stroke: var(--dim); stroke-dasharray: 5 4; }
@media print { body { max-width: none; } .wide { overflow: visible; } section { break-inside: auto; } }
"""
