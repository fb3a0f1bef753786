// Writes the man pages, from what `--help` prints and from the schemas with the comments of
// config.yaml and firewall.yaml, and the completions of shells: `npm run build` calls it.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import manifest from '../../../package.json' with { type: 'json' }
import { describe, keysOf, type Schema } from './comments.ts'
import { bash, fish, zsh } from './completion.ts'
import { type Block, blocksOf, type Help, helps, type Item } from './help.ts'

const CONFIG = '/etc/fail2ban-perimeter/config.yaml'
const STATE = '/var/lib/fail2ban-perimeter/'

/** Columns for what may not be filled: 80 less the margins of man. */
const WIDTH = 72

/** What a text says to roff as it is. A dash is one that can be copied, never a hyphen. */
function plain(text: string): string {
  const escapes: Record<string, string> = { '\\': '\\e', '-': '\\-', '^': '\\(ha', '~': '\\(ti' }
  return text.replace(/[\\^~-]/g, (sign) => escapes[sign] ?? sign).replace(/^(?=[.'])/gm, '\\&')
}

/** A name and its placeholders, `--ip ADDR`: what is typed as it is, and what is replaced. */
function tag(text: string): string {
  const words = text.split(/(\s+)/)
  return words
    .map((word) => {
      if (/^\s*$/.test(word)) return word
      return /^[A-Z][A-Z0-9:|[\]]*$|^<.*>$/.test(word)
        ? `\\fI${plain(word)}\\fR`
        : `\\fB${plain(word)}\\fR`
    })
    .join('')
}

/** Lines as they are. One that is too long goes on in the next, as a shell takes it. */
function literal(lines: readonly string[]): string {
  const folded = lines.flatMap((line) => {
    const out: string[] = []
    let rest = line
    while (rest.length > WIDTH) {
      const cut = rest.lastIndexOf(' ', WIDTH - 2)
      out.push(`${rest.slice(0, cut)} \\`)
      rest = `    ${rest.slice(cut + 1)}`
    }
    return [...out, rest]
  })
  const text = plain(folded.join('\n')).replace(/'/g, '\\(aq')
  return `.PP\n.RS 2\n.nf\n${text}\n.fi\n.RE`
}

function list(items: readonly Item[]): string {
  return items.map(({ tag: word, text }) => `.TP\n${tag(word)}\n${plain(text || '\\&')}`).join('\n')
}

function render(block: Block): string {
  if (block.kind === 'list') return list(block.items)
  if (block.kind === 'lines') return literal(block.lines)
  return block.kind === 'prose' ? `.PP\n${plain(block.text)}` : `.SS ${plain(block.text)}`
}

/** A page: its head, then sections by their names. */
function page(name: string, section: number, what: string, parts: [string, string][]): void {
  const head = `.TH ${plain(name.toUpperCase())} ${section} "" "${manifest.name} ${manifest.version}" "${manifest.name}"`
  const body = [['NAME', `${plain(name)} \\- ${plain(what)}`], ...parts]
  const text = body
    .filter(([, content]) => content)
    .map(([title, content]) => `.SH ${title}\n${content}`)
  // A paragraph at the beginning of a section would be an empty one.
  const whole = [head, ...text].join('\n').replace(/^(\.S[HS] .*\n)\.PP\n(?!\.RS)/gm, '$1')
  writeFileSync(`dist/man/${name}.${section}`, `${whole}\n`)
}

/** "Blocks on every firewall: what else" becomes "blocks on every firewall". */
function summary(text: string): string {
  const [first = ''] = text.replace(/\s+/g, ' ').split(/[.:;,] |\.$/)
  return first.charAt(0).toLowerCase() + first.slice(1)
}

/** What belongs to which section: a heading opens one, and text after a list is below it. */
function sectionsOf({ blocks }: Help): Map<string, string[]> {
  const sections = new Map<string, string[]>()
  let current = 'DESCRIPTION'
  const put = (text: string): void =>
    void sections.set(current, [...(sections.get(current) ?? []), text])
  for (const [i, block] of blocks.entries()) {
    const next = blocks[i + 1]
    if (block.kind !== 'heading') {
      put(render(block))
      continue
    }
    const [, word = '', more] = /^(\w+)(?: \((.*)\))?$/.exec(block.text) ?? []
    const hasOptions = next?.kind === 'list' && next.items[0]?.tag.startsWith('-')
    if (hasOptions) {
      current = 'OPTIONS'
      if (word !== 'Options' || sections.has(current))
        put(render({ ...block, text: word === 'Options' ? 'Every command' : block.text }))
      continue
    }
    current = block.text === 'Exit codes' ? 'EXIT STATUS' : (word || block.text).toUpperCase()
    if (more) put(`.PP\n${plain(`${more.charAt(0).toUpperCase()}${more.slice(1)}.`)}`)
  }
  return sections
}

const FILES: Item[] = [
  { tag: CONFIG, text: 'the settings: fail2ban\\-perimeter.yaml(5)' },
  { tag: STATE, text: 'what is queued, and what targets remember' },
]
const SETUP_FILES: Item[] = [
  ...FILES,
  {
    tag: '/etc/fail2ban-perimeter/firewall.yaml',
    text: 'the settings of a firewall: firewall.yaml(5)',
  },
  {
    tag: '/etc/fail2ban-perimeter/id_ed25519, known_hosts',
    text: "this server's key, and its firewalls' host keys",
  },
  {
    tag: '/etc/fail2ban-perimeter/ssh/.ssh/authorized_keys',
    text: 'on a firewall: a line for each server that is let in',
  },
]

function files(items: readonly Item[]): string {
  return items.map(({ tag: path, text }) => `.TP\n\\fI${plain(path)}\\fR\n${text}`).join('\n')
}

function seeAlso(pages: readonly string[]): string {
  return pages
    .map((name) => `\\fB${plain(name.replace(/\(.*/, ''))}\\fR${name.slice(name.indexOf('('))}`)
    .join(',\n')
}

function command(help: Help, all: readonly Help[]): void {
  const { command: name, usage, blocks } = help
  const [about] = blocks
  const sections = sectionsOf(help)
  const take = (title: string): [string, string] => {
    const content = sections.get(title) ?? []
    sections.delete(title)
    return [title, content.join('\n')]
  }
  const said = JSON.stringify(blocks)
  const others = all.map(({ command: other }) => other).filter((other) => other !== name)
  const named = others.filter((other) => new RegExp(`(?<![\\w-])${other}(?![\\w-])`).test(said))
  const own =
    name === 'f2b-setup'
      ? ['firewall.yaml(5)']
      : named.includes('f2b-setup')
        ? []
        : ['f2b-setup(1)']
  const pages = [
    ...named.map((other) => `${other}(1)`),
    ...own,
    'fail2ban-perimeter.yaml(5)',
    'fail2ban-client(1)',
  ]
  const synopsis = usage.map((line) => {
    const [first = '', ...rest] = line.split(/ +/)
    return `\\fB${plain(first)}\\fR ${plain(rest.join(' '))}`
  })
  const [description, options, status] = ['DESCRIPTION', 'OPTIONS', 'EXIT STATUS'].map(take)
  page(name, 1, summary(about?.kind === 'prose' ? about.text : name), [
    ['SYNOPSIS', synopsis.join('\n.br\n')],
    description ?? ['', ''],
    ...[...sections].map(([title, content]): [string, string] => [title, content.join('\n')]),
    options ?? ['', ''],
    status ?? ['', ''],
    ['FILES', files(name === 'f2b-setup' ? SETUP_FILES : FILES)],
    ['SEE ALSO', seeAlso(pages)],
  ])
}

/** What a value may be, and what it is if nobody says. */
function kindOf(schema: Schema): string {
  const { type, minimum, maximum, items, anyOf } = schema
  const range = minimum === undefined ? '' : ` from ${minimum} to ${maximum}`
  const kinds: Record<string, string> = {
    string: 'text',
    boolean: 'true or false',
    integer: `whole number${range}`,
    object: 'map',
    array:
      items?.type === 'object'
        ? 'list of maps'
        : `list of ${items ? (items.enum?.join(', ') ?? kindOf(items)) : 'text'}`,
  }
  const kind =
    schema.enum?.join(' | ') ?? anyOf?.map(kindOf).join(', or ') ?? kinds[type ?? ''] ?? 'text'
  const { default: known } = schema
  const isEmpty =
    known === undefined || (typeof known === 'object' && JSON.stringify(known).length === 2)
  return isEmpty
    ? kind
    : `${kind}; default ${typeof known === 'string' ? known : JSON.stringify(known)}`
}

/** The keys of a map, those of maps in it below them. */
function keys(schema: Schema): string {
  return Object.entries(keysOf(schema))
    .map(([name, value]) => {
      const said = blocksOf((value.description ?? '').split('\n')).map((block, i) => {
        if (block.kind === 'list') return `.RS\n${list(block.items)}\n.RE`
        return render(block).replace(/^\.PP$/m, i === 0 ? '.br' : '.IP')
      })
      const below = keys(value)
      return [
        `.TP\n\\fB${plain(name)}\\fR\n(${plain(kindOf(value))})`,
        ...said,
        ...(below ? [`.RS\n${below}\n.RE`] : []),
      ].join('\n')
    })
    .join('\n')
}

function settings(
  name: string,
  what: string,
  example: string,
  schema: Schema,
  also: string[],
): void {
  const head = describe(readFileSync(example, 'utf8'), schema)
    .split('\n')
    .map((line) => line.trimEnd())
  page(name, 5, what, [
    ['DESCRIPTION', blocksOf(head).map(render).join('\n')],
    ['KEYS', keys(schema)],
    ['FILES', files(name === 'firewall.yaml' ? SETUP_FILES.slice(2, 3) : FILES)],
    ['SEE ALSO', seeAlso(also)],
  ])
}

function schemaOf(name: string): Schema {
  return JSON.parse(readFileSync(`dist/${name}.schema.json`, 'utf8'))
}

rmSync('dist/man', { recursive: true, force: true })
mkdirSync('dist/man', { recursive: true })
mkdirSync('dist/completion', { recursive: true })
const all = helps()
for (const help of all) command(help, all)
const server = ['f2b-setup(1)', 'f2b-status(1)', 'fail2ban-client(1)', 'jail.conf(5)']
settings(
  'fail2ban-perimeter.yaml',
  'settings of fail2ban-perimeter beside Fail2Ban',
  'config.yaml',
  schemaOf('config'),
  server,
)
settings(
  'firewall.yaml',
  'settings of fail2ban-perimeter on a firewall',
  'firewall-side/firewall.yaml',
  schemaOf('firewall'),
  ['f2b-setup(1)', 'nft(8)', 'ipset(8)', 'iptables(8)'],
)
writeFileSync('dist/completion/fail2ban-perimeter.bash', bash(all))
writeFileSync('dist/completion/_fail2ban-perimeter', zsh(all))
writeFileSync('dist/completion/fail2ban-perimeter.fish', fish(all))
