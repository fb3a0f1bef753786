import { spawnSync } from 'node:child_process'
import manifest from '../../../package.json' with { type: 'json' }

// Reads what `--help` prints: man pages and completion are made of it, so that there is one text.

/** A piece of such a text: a heading, running text, a list of words with what they mean, or lines. */
export type Block =
  | { kind: 'heading' | 'prose'; text: string }
  | { kind: 'list'; items: Item[] }
  | { kind: 'lines'; lines: string[] }

export interface Item {
  tag: string
  text: string
}

export interface Help {
  command: string
  /** What follows `Usage:`, a line for each way. */
  usage: string[]
  blocks: Block[]
}

/** An option as completion needs it. */
export interface Flag {
  names: string[]
  /** What stands for its value, such as `FILE`; empty if it takes none. */
  value: string
  /** The values themselves, where there are only so many. */
  choices: string[]
  text: string
  /** The words after the command that it belongs to; empty for all. */
  side: string
}

/** Every command of the package that root has in its PATH. */
export function helps(): Help[] {
  return Object.entries(manifest.bin).map(([command, program]) => {
    const { stdout, status, stderr } = spawnSync(process.execPath, [program, '--help'], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`${command} --help: ${stderr}`)
    const [usage = '', ...rest] = stdout.split('\n\n')
    const ways = usage.split('\n').map((line) => line.replace(/^(Usage:)? +/, ''))
    return { command, usage: ways, blocks: blocksOf(rest.join('\n\n').trimEnd().split('\n')) }
  })
}

const VALUE = '[A-Z][A-Z0-9]*(?:[[:|]+[A-Z0-9]+\\]?)*'
const OPTION = `--[a-z0-9-]+(?: ${VALUE})?`
/** An option may have its text behind a single blank; any other word has two. */
const TAGGED = new RegExp(
  `^ {1,6}(?:((?:-\\w, )?${OPTION}(?:, ${OPTION})*)(?: +(.*))?|(\\S+(?: \\S+)*?) {2,}(\\S.*))$`,
)

/** Text in which what is indented is a list or stands as it is. */
export function blocksOf(lines: readonly string[]): Block[] {
  const blocks: Block[] = []
  for (let at = 0; at < lines.length; ) {
    const line = lines[at] ?? ''
    if (line === '') {
      at++
      continue
    }
    const isIndented = line.startsWith(' ')
    let end = at + 1
    while (lines[end] && lines[end]?.startsWith(' ') === isIndented) end++
    const part = lines.slice(at, end)
    const isHeading = part.length === 1 && lines[end]?.startsWith(' ') && !/[.:]$/.test(line)
    if (isIndented) blocks.push(indented(part))
    else blocks.push({ kind: isHeading ? 'heading' : 'prose', text: part.join('\n') })
    at = end
  }
  return blocks
}

function indented(lines: string[]): Block {
  const depth = (line: string): number => line.search(/\S/)
  const least = Math.min(...lines.map(depth))
  const items: Item[] = []
  for (const line of lines) {
    const [, option, optionText = '', word, wordText = ''] = TAGGED.exec(line) ?? []
    const last = items.at(-1)
    if (option !== undefined) items.push({ tag: option, text: optionText })
    else if (word !== undefined && depth(line) === least) items.push({ tag: word, text: wordText })
    else if (last && depth(line) > least + 4) last.text = `${last.text} ${line.trim()}`.trim()
    else return { kind: 'lines', lines: lines.map((one) => one.slice(least)) }
  }
  return { kind: 'list', items }
}

/** The verbs of a command, or the words that one of them must be followed by. */
export function wordsOf({ command, usage, blocks }: Help): Map<string, Item[]> {
  const words = new Map<string, Item[]>()
  const add = (after: string, items: Item[]): void => {
    const known = words.get(after) ?? []
    words.set(after, [...known, ...items.filter(({ tag }) => !known.some((k) => k.tag === tag))])
  }
  for (const [i, block] of blocks.entries()) {
    const list = blocks[i + 1]
    if (block.kind === 'heading' && block.text.startsWith('Verbs') && list?.kind === 'list') {
      add('', list.items)
    }
  }
  // f2b-setup net2ban server|client [options]
  for (const line of usage) {
    const [name, ...rest] = line.split(/ +/)
    if (name !== command) continue
    const fixed = rest.slice(
      0,
      rest.findIndex((word) => !/^[a-z0-9|]+$/.test(word)),
    )
    for (const [i, word] of fixed.entries()) {
      const items = word.split('|').map((tag) => ({ tag, text: '' }))
      add(fixed.slice(0, i).join(' '), items)
    }
  }
  return words
}

/** The options of a command. */
export function flagsOf({ command, blocks }: Help): Flag[] {
  let heading = ''
  return blocks.flatMap((block) => {
    if (block.kind === 'heading') heading = block.text
    if (block.kind !== 'list') return []
    const side = heading.startsWith(`${command} `) ? heading.slice(command.length + 1) : ''
    return block.items.filter(({ tag }) => tag.startsWith('-')).map((item) => flag(item, side))
  })
}

function flag({ tag, text }: Item, side: string): Flag {
  const also = /\(also (--[a-z-]+)\)/.exec(text)?.[1]
  const names = [...(tag.match(/(?<=^|[\s,])--?[a-z0-9-]+/g) ?? []), ...(also ? [also] : [])]
  const value = new RegExp(`(?<= )${VALUE}$`).exec(tag)?.[0] ?? ''
  const choices = value.includes('|') ? value.split('|') : choicesIn(text)
  return { names, value, choices: value ? choices : [], text, side }
}

/** `list: json | csv`, `hosts (one each) | iplist`, `queued: does this; direct: does that`. */
function choicesIn(text: string): string[] {
  const plain = text.replace(/\([^)]*\)/g, '')
  const named = [...plain.matchAll(/(?:^|; )([a-z]+): /g)].map(([, word = '']) => word)
  if (named.length > 1) return named
  const parts = plain.split(/ *\| */)
  if (parts.length === 1) return []
  return parts.flatMap((part) => /^(?:[a-z]+: )?([a-z][\w-]*) *(?:[;,].*)?$/.exec(part)?.[1] ?? [])
}
