"""The style sheet of report pages."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --paper: #f6f6f4; --surface: #ffffff; --ink: #1c1c1e; --soft: #6b6b70; --line: #e3e3df; --accent: #2f6feb;
  --shadow: 0 1px 2px rgba(0,0,0,.05), 0 6px 20px rgba(0,0,0,.05);
  --series-0: #2f6feb; --series-1: #e0662b; --series-2: #2a9d6f; --series-3: #a44bc4; --series-4: #c93a55;
  --series-5: #8a7a2a; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #131315; --surface: #1d1d20; --ink: #ececee; --soft: #9a9aa2; --line: #303035; --accent: #7aa7ff;
  --shadow: none;
  --series-0: #7aa7ff; --series-1: #ff9a63; --series-2: #5fd0a2; --series-3: #d08bea; --series-4: #ff7f96;
  --series-5: #d4c162; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 8px; }
h2 { font-size: 1.25rem; letter-spacing: -.01em; margin: 48px 0 12px; }
p { margin: 0 0 12px; max-width: 72ch; overflow-wrap: anywhere; }
.subtitle { color: var(--soft); font-size: 1.05rem; margin-bottom: 28px; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; padding: .12em .4em; border-radius: 6px;
  background: color-mix(in srgb, var(--ink) 8%, transparent); }
.grid { display: grid; gap: 24px; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); margin: 20px 0; }
.card, .box { background: var(--surface); border: 1px solid var(--line); border-radius: 16px;
  box-shadow: var(--shadow); overflow: hidden; }
.side-by-side { grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
.hero { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); margin: 0 0 28px; }
.hero figure { margin: 0; }
.hero video { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #000;
  border-radius: 16px; }
.hero figcaption { font-size: .95rem; line-height: 1.35; margin: 8px 4px 0; }
.gallery video, .gallery .card > img { image-rendering: pixelated; }
.gallery video { cursor: pointer; }
.gallery video.loud { outline: 3px solid var(--accent); outline-offset: -3px; }
.card video, .card > img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #000; }
.card audio { width: 100%; padding: 16px 16px 0; }
.card .body { padding: 14px 16px 16px; }
.card .body img { display: block; width: 100%; border-radius: 8px; margin: 10px 0 0; }
.label { color: var(--soft); font-size: .85rem; margin: 0 0 2px; }
.prompt { font-weight: 600; line-height: 1.35; margin: 0; }
.facts { color: var(--soft); font-size: .85rem; margin: 12px 0 0; display: flex; flex-wrap: wrap; gap: 4px 16px; }
.facts b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
details { margin: 12px 0 0; font-size: .85rem; color: var(--soft); }
summary { cursor: pointer; }
pre { margin: 8px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
pre code { display: block; padding: 8px 10px; color: var(--ink); }
.box { margin: 16px 0; padding: 16px; }
.box video, .box img { display: block; max-width: 100%; border-radius: 8px; }
.box video { width: min(100%, 480px); background: #000; }
.box audio { width: min(100%, 480px); }
figcaption { color: var(--soft); font-size: .9rem; margin: 8px 0 0; }
.box > figcaption:first-child { color: var(--ink); font-weight: 600; margin: 0 0 10px; }
.scroll { overflow-x: auto; background: var(--surface); border: 1px solid var(--line); border-radius: 16px;
  margin: 16px 0; box-shadow: var(--shadow); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: 9px 16px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--soft); font-size: 12px; }
.chart .rule { stroke: var(--line); stroke-width: 1; }
.chart polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; color: var(--soft); font-size: .88rem; margin-top: 8px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }
.legend b { color: var(--ink); font-variant-numeric: tabular-nums; font-weight: 600; }
.empty { color: var(--soft); }
@media (max-width: 720px) {
  main { padding: 28px 14px 56px; }
  .side-by-side, .hero { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px; }
  .side-by-side .body { padding: 10px; }
  .side-by-side .prompt { font-size: .9rem; } }
""".strip()
