import { stripVTControlCharacters } from 'node:util'

/** Cell and margins in pixels: what browsers make of a 14 pixel monospace font. */
const CELL = { width: 8.4, height: 19 }
const MARGIN = { side: 18, top: 46, bottom: 8 }

/** A look that is readable by itself, on a white page and on a black one. */
const STYLE = `text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d6deeb;white-space:pre}
.bold{font-weight:700}.dim{fill:#8493ab}.red{fill:#ff7b72}.green{fill:#5fd38d}.cyan{fill:#6fc7ff}`

/** The escape codes of util.styleText that change something here. */
const CODES: Record<string, string> = { 1: 'bold', 2: 'dim', 31: 'red', 32: 'green', 36: 'cyan' }

/** A piece of a line in one look. */
interface Run {
  column: number
  text: string
  look: string[]
}

/** Turns what a terminal was given into a picture of that terminal: SVG, no script, no font. */
export function toSvg(ansi: string, title = 'npm run demo'): string {
  const lines = ansi.replace(/^\n+|\n+$/g, '').split('\n')
  const columns = Math.max(...lines.map((line) => stripVTControlCharacters(line).length))
  const width = Math.ceil(columns * CELL.width + 2 * MARGIN.side)
  const height = MARGIN.top + lines.length * CELL.height + MARGIN.bottom
  const body = lines.flatMap((line, row) => runsOf(line).map((run) => draw(run, row)))
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${escapeXml(title)}</title>
<style>${STYLE}</style>
<rect x=".5" y=".5" width="${width - 1}" height="${height - 1}" rx="9" fill="#141b26" stroke="#3a475c"/>
${['#ff5f57', '#febc2e', '#28c840'].map(dot).join('')}
<text class="dim" x="${width / 2}" y="23" text-anchor="middle">${escapeXml(title)}</text>
${body.join('\n')}
</svg>
`
}

/** Splits a line where its look changes, and at gaps: what follows a gap begins in its own column. */
function runsOf(line: string): Run[] {
  const runs: Run[] = []
  const look = new Set<string>()
  let column = 0
  for (const piece of line.split(/(\x1b\[\d+m)/)) {
    const code = /^\x1b\[(\d+)m$/.exec(piece)?.[1]
    if (code !== undefined) change(look, code)
    else {
      for (const [text] of piece.matchAll(/\s{2,}|(?:\S|\s(?!\s))+/g)) {
        if (text.trim()) runs.push({ column, text, look: [...look] })
        column += text.length
      }
    }
  }
  return runs
}

function change(look: Set<string>, code: string): void {
  if (code === '22') {
    look.delete('bold')
    look.delete('dim')
  }
  if (code === '39') for (const colour of ['red', 'green', 'cyan']) look.delete(colour)
  const name = CODES[code]
  if (name) look.add(name)
}

/** The length is given, so that columns stand below each other whatever font there is. */
function draw({ column, text, look }: Run, row: number): string {
  const lead = text.length - text.trimStart().length
  const shown = text.trim()
  const x = pixels(MARGIN.side + (column + lead) * CELL.width)
  const y = MARGIN.top + (row + 0.75) * CELL.height
  const names = look.length > 0 ? ` class="${look.join(' ')}"` : ''
  const length = pixels(shown.length * CELL.width)
  return `<text${names} x="${x}" y="${pixels(y)}" textLength="${length}">${escapeXml(shown)}</text>`
}

function dot(fill: string, index: number): string {
  return `<circle cx="${22 + 19 * index}" cy="18" r="6" fill="${fill}"/>`
}

function pixels(value: number): string {
  return String(Math.round(value * 10) / 10)
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
