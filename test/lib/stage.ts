import { stripVTControlCharacters, styleText } from 'node:util'

/** Columns of the widest line; numbers end in front of the units, which are at the right edge. */
export const WIDTH = 92
const UNIT = 6
const INDENT = '     '

/** What a demonstration prints: a title, a drawing, numbered steps with commands and facts. */
export interface Stage {
  title(name: string, about: string): void
  /** Lines as they are, such as a drawing. */
  plain(text: string): void
  /** Begins the next step. */
  step(title: string): void
  /** A command that is really run: `command('web1#', 'f2b-firewall list')`. */
  command(prompt: string, line: string): void
  /** What a command printed. */
  output(text: string): void
  /** Something that was measured or seen: `fact('it takes', 12, 'ms')`, `fact('let in', 0, 'of 4')`. */
  fact(text: string, value?: number, unit?: string): void
  /** The last line. */
  summary(text: string): void
  /** The last lines of a demonstration that went wrong. */
  failure(error: unknown): void
  /** Everything printed so far, with its colours, whether they were shown or not. */
  text(): string
}

type Format = Parameters<typeof styleText>[0]

/** @param stream gets colours only if it is a terminal that has them and NO_COLOR is not set */
export function createStage(stream: NodeJS.WriteStream = process.stdout): Stage {
  const coloured = stream.isTTY && stream.hasColors(16)
  let written = ''
  let steps = 0

  function print(line = ''): void {
    const text = `${line.trimEnd()}\n`
    written += text
    stream.write(coloured ? text : stripVTControlCharacters(text))
  }

  return {
    title(name, about) {
      print()
      print(`  ${style(['bold', 'cyan'], name)}`)
      print(`  ${style('dim', about)}`)
      print()
    },
    plain(text) {
      for (const line of text.split('\n')) print(`  ${line}`)
    },
    step(title) {
      steps++
      print()
      print(`  ${style(['bold', 'cyan'], String(steps).padStart(2))} ${style('bold', title)}`)
    },
    command(prompt, line) {
      print(`${INDENT}${style('dim', `${prompt} ${line}`)}`)
    },
    output(text) {
      for (const line of text.trimEnd().split('\n')) print(`${INDENT}${line}`)
    },
    fact(text, value, unit = '') {
      const mark = `${INDENT}${style('green', '✓')} `
      if (value === undefined) return print(`${mark}${text}`)
      const number = Math.round(value).toLocaleString('en')
      const room = WIDTH - UNIT - 1 - INDENT.length - 2 - text.length
      const end = style('bold', number.padStart(room))
      print(`${mark}${text}${end}${unit && ` ${style('dim', unit)}`}`)
    },
    summary(text) {
      print()
      print(`  ${style(['bold', 'green'], '✓')} ${style('bold', text)}`)
      print()
    },
    failure(error) {
      const [first = '', ...rest] = messageOf(error).trimEnd().split('\n')
      print(`${INDENT}${style('red', '✗')} ${first}`)
      for (const line of rest) print(`${INDENT}  ${line}`)
      print()
      const where = steps > 0 ? `Step ${steps} failed` : 'The demonstration did not begin'
      print(
        `  ${style(['bold', 'red'], '✗')} ${style('bold', `${where}; everything is cleaned up`)}`,
      )
      print()
    },
    text: () => written,
  }
}

/** Colours a text even if nobody may see it: the stream decides later. */
export function style(format: Format, text: string): string {
  return styleText(format, text, { validateStream: false })
}

/** @throws Error with what was seen, unless it is so */
export function expect(isSo: boolean, seen: string): asserts isSo {
  if (!isSo) throw new Error(seen)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
