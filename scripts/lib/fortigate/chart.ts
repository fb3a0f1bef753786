import { type Html, html } from './html.ts'

const WIDTH = 720
const HEIGHT = 130
const FLOOR = 100
const TOP = 24

/** Bars with a label under every third (every sixth on a phone); each tells its value when pointed at. */
export function chart(bars: { label: string; value: number }[]): Html {
  const most = Math.max(1, ...bars.map((bar) => bar.value))
  const step = WIDTH / bars.length
  const total = bars.reduce((sum, bar) => sum + bar.value, 0)
  return html`<svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${total} new bans in ${bars.length} hours, at most ${most} in one">
<line class="axis" x1="0" x2="${WIDTH}" y1="${FLOOR + 0.5}" y2="${FLOOR + 0.5}"/>
${bars.map(({ label, value }, i) => {
  const height = value === 0 ? 0 : Math.max(2, ((FLOOR - TOP) * value) / most)
  const x = i * step
  const top = value > 0 && value === most
  return html`<g><title>${label} UTC: ${value}</title>
<rect class="slot" x="${x}" y="0" width="${step}" height="${FLOOR}"/>
<rect class="bar" x="${x + 3}" y="${FLOOR - height}" width="${step - 6}" height="${height}" rx="2"/>
${top ? html`<text x="${x + step / 2}" y="${FLOOR - height - 4}">${value}</text>` : undefined}
${i % 3 === 2 ? html`<text${i % 6 === 5 ? html` class="minor"` : undefined} x="${x + step / 2}" y="${HEIGHT - 6}">${label}</text>` : undefined}</g>
`
})}</svg>`
}
