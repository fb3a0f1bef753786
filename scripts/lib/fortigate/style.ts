/** The page's one style sheet; the page's security policy knows it by its hash. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1b2330; --soft: #5b6675; --line: #e0e4ea;
  --accent: #2563b0; --bad: #b4232c; --bad-page: #fdeceb; --good: #1d7044; --good-page: #e8f5ed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2028; --ink: #e6eaf0; --soft: #98a4b3; --line: #2b333e;
    --accent: #6fb0ff; --bad: #ff8f8a; --bad-page: #3a1d1f; --good: #7fd6a4; --good-page: #16301f;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1rem }
header { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: 0 1rem; padding-top: 1.25rem }
h1 { font-size: 1.4rem; font-weight: 400; margin: 0 }
h2 { font-size: 1rem; margin: 0 0 .5rem }
header p, footer { color: var(--soft); font-size: .875rem }
header p { margin: 0 }
footer { padding: .5rem 1rem 2rem }
a { color: var(--accent) }
header a { margin-left: .75rem }
section, .banner { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.25rem; margin: 1rem 0 }
.banner { padding: .65rem 1.25rem; border-left-width: 5px; overflow-wrap: anywhere }
.bad { color: var(--bad); background: var(--bad-page); border-color: var(--bad); font-weight: 600 }
.good { color: var(--good); background: var(--good-page); border-color: var(--good) }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem; padding: 0; border: 0; background: none }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.25rem }
.tiles h2 { font-size: .875rem; font-weight: 500; color: var(--soft); margin: 0 }
.tiles p { margin: 0; color: var(--soft); font-size: .875rem }
.tiles .value { color: var(--ink); font-size: 1.75rem; line-height: 1.3; font-weight: 600; white-space: nowrap }
.pair { display: grid; grid-template-columns: 3fr 2fr; gap: 1rem }
.pair section { margin: 0 }
.chart { display: block; width: 100%; height: auto }
.chart .axis { stroke: var(--line) }
.chart .slot { fill: transparent }
.chart .bar { fill: var(--accent) }
.chart g:hover .slot { fill: var(--line) }
.chart text { fill: var(--soft); font-size: 11px; text-anchor: middle }
form { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem }
input, button { font: inherit; color: inherit; padding: .4rem .75rem; border: 1px solid var(--line); border-radius: 6px; background: var(--page) }
input { flex: 1 1 12rem; min-width: 0; max-width: 24rem }
button { cursor: pointer; background: var(--accent); border-color: var(--accent); color: var(--card) }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
.note, .empty { color: var(--soft); margin: .5rem 0; font-size: .875rem }
table { width: 100%; border-collapse: collapse }
th, td { text-align: left; padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line); overflow-wrap: break-word; vertical-align: top }
.devices td:last-child { overflow-wrap: anywhere }
thead th { border-top: 0; color: var(--soft); font-size: .8rem; font-weight: 500 }
td { font-variant-numeric: tabular-nums }
code { font: .95em ui-monospace, "DejaVu Sans Mono", monospace }
.again td { border-top-color: transparent; padding-top: 0 }
.again code { opacity: 0 }
.stale td { color: var(--bad) }
@media (max-width: 40rem) {
  .tiles { grid-template-columns: 1fr 1fr; gap: .6rem }
  .tiles div { padding: .7rem .9rem }
  .tiles .value { font-size: 1.35rem }
  section { padding: .9rem }
  .tiles { padding: 0 }
  .chart text { font-size: 22px }
  .chart .minor { display: none }
  thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden }
  .pair { grid-template-columns: 1fr }
  tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0 }
  td { border: 0; padding: .05rem 0; display: flex; align-items: baseline; gap: .75rem }
  td::before { content: attr(data-name); color: var(--soft); flex: 0 0 6rem }
  .counts tr { display: grid; grid-template-columns: 5rem 1fr auto }
  .counts td::before { content: none }
  .bans tr { display: grid; grid-template-columns: 1fr auto; column-gap: .75rem }
  .bans td::before { content: none }
  .bans td:nth-child(4) { grid-area: 1 / 2 }
  .bans td:nth-child(n+2):nth-child(-n+3) { color: var(--soft); font-size: .875rem }
  .bans td:nth-child(3) { justify-content: end }
  .again code { opacity: 1 }
}
`
