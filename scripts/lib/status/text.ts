import { stripVTControlCharacters, styleText } from 'node:util'

type Format = Parameters<typeof styleText>[0]

/** Where a table or a report goes: how wide it is, and whether it has colours. */
export interface Paper {
  /** Infinity in a file or a pipe. */
  width: number
  style(format: Format, text: string): string
}

export interface Column {
  title: string
  /** Numbers and spans end at the right. */
  right?: boolean
}

const GAP = '  '

/** A terminal has colours (unless NO_COLOR says not) and a width; anything else has neither. */
export function paperOf(stream: NodeJS.WriteStream): Paper {
  const coloured = stream.isTTY && stream.hasColors?.(16)
  return {
    width: stream.isTTY ? Math.max(stream.columns || 80, 40) : Infinity,
    style: (format, text) =>
      coloured && text !== '' ? styleText(format, text, { validateStream: false }) : text,
  }
}

/**
 * Lines with the cells below each other, whatever colours they have. Where they do not fit, what
 * stands in the first column gets a line of its own.
 */
export function tableOf(columns: Column[], rows: string[][], paper: Paper): string[] {
  const widths = columns.map(({ title }, i) =>
    Math.max(title.length, ...rows.map((row) => lengthOf(row[i] ?? ''))),
  )
  const width = widths.reduce((sum, one) => sum + one, GAP.length * (columns.length - 1))
  const isWide = width > paper.width
  if (isWide) widths[0] = columns[0]?.title.length ?? 0
  const line = (cells: string[]): string =>
    columns
      .map(({ right }, i) => {
        const cell = cells[i] ?? ''
        const blanks = ' '.repeat((widths[i] ?? 0) - lengthOf(cell))
        return right ? blanks + cell : cell + blanks
      })
      .join(GAP)
      .trimEnd()
  const head = line(columns.map(({ title }) => title))
  const below = (row: string[]): string[] => [row[0] ?? '', line(['', ...row.slice(1)])]
  return [paper.style('bold', head), ...(isWide ? rows.flatMap(below) : rows.map(line))]
}

/** A text behind its name, in as many lines as the paper needs; the name hangs at the left. */
export function entry(name: string, indent: number, text: string, paper: Paper): string[] {
  const room = Math.max(paper.width - indent - 1, 20)
  const [first = '', ...others] = wrap(text, room)
  const blanks = ' '.repeat(Math.max(indent - lengthOf(name), 1))
  return [`${name}${blanks}${first}`, ...others.map((line) => ' '.repeat(indent) + line)]
}

/** Shortens a name that would tear the table apart, in its middle. */
export function fit(text: string, longest: number): string {
  if (text.length <= longest) return text
  const head = Math.ceil((longest - 1) / 2)
  return `${text.slice(0, head)}~${text.slice(text.length - (longest - 1 - head))}`
}

function wrap(text: string, room: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`
    if (line !== '' && lengthOf(longer) > room) {
      lines.push(line)
      line = word
    } else {
      line = longer
    }
  }
  return [...lines, line]
}

function lengthOf(text: string): number {
  return stripVTControlCharacters(text).length
}

/** Time spans in seconds, the longest that fits first. */
const UNITS: [number, string][] = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
  [1, 's'],
]

/** A time span as a person says it, in its largest unit: `12 s`, `3 min`, `2 h`, `40 d`. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  const [size, unit] = UNITS.find(([size]) => whole >= size) ?? [1, 's']
  return `${Math.floor(whole / size)} ${unit}`
}

/** A moment in local time: `2026-11-20 17:05:20`. */
export function moment(at: number): string {
  const date = new Date(at * 1000)
  const two = (value: number): string => String(value).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

/** When a ban ends: `2026-11-20 17:15:20 (in 7 min)`, or `never`. */
export function ending(expires: number, now: number): string {
  if (expires === 0) return 'never'
  const left = expires - now
  return `${moment(expires)} (${left > 0 ? `in ${span(left)}` : 'over'})`
}

/**
 * What another program, machine or attacker wrote, as it may stand in a terminal: no control codes
 * (nor those that turn the direction of the text) and on one line.
 */
export function plain(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').trim()
}

/** `1 ban`, `2 bans`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}
