import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import type { ActionFile } from './action-file.ts'
import type { ActionName } from './call.ts'
import { readOption, type Sections } from './ini.ts'
import { fillDynamicTags, fillTags, resolveTags, type Tags } from './tags.ts'

// What Fail2Ban makes of an action file and its parameters: the client's half (actionreader.py and
// configreader.py) fills in what is fixed, the server's half (action.py) chooses by family.

/** Fail2Ban's word for a family; empty where an action makes no difference. */
export type ActionFamily = 'inet4' | 'inet6' | ''

/** An action file with its parameters. */
export interface Action {
  /** The families that `actionstart` starts. */
  readonly families: readonly ActionFamily[]
  /** True if a family is started by its first ban. */
  readonly onDemand: boolean
  /** Seconds until a command is killed. */
  readonly timeout: number
  /** True if a ban tells when it ends. */
  readonly timed: boolean
  /** The shell text of an action; empty if there is nothing to do. */
  command(action: ActionName, family: ActionFamily, dynamic?: Tags): string
}

const OPTIONS = [
  'actionstart',
  'actionstart_on_demand',
  'actionstop',
  'actionflush',
  'actionreload',
  'actioncheck',
  'actionrepair',
  'actionrepair_on_unban',
  'actionban',
  'actionprolong',
  'actionreban',
  'actionunban',
  'norestored',
]

/** Of a ban, so never fixed. */
const UNFIXED = ['timeout', 'bantime']

const TIMEOUT = 60

/**
 * Resolves an action file for the parameters of one jail.
 *
 * @param params what Fail2Ban would find between the brackets of `action = file[...]`
 * @throws Failure 78 if the file's tags or `%(...)s` lead nowhere
 */
export function resolveAction(
  source: ActionFile,
  params: Readonly<Record<string, string>>,
): Action {
  try {
    return fromProperties(propertiesOf(source, params))
  } catch (error) {
    throw new Failure(EXIT.config, `Cannot use action ${quote(source.file)}: ${messageOf(error)}`)
  }
}

function fromProperties(properties: Map<string, string>): Action {
  const conditional = [...properties.keys()].some((name) => /^\w+\?family=/.test(name))
  const onDemand = properties.get('actionstart_on_demand')
  const resolved = new Map<ActionFamily, Tags>()
  const tagsOf = (family: ActionFamily): Tags => {
    const condition = family ? `family=${family}` : undefined
    const tags = resolved.get(family) ?? resolveTags(properties, { condition })
    resolved.set(family, tags)
    return tags
  }
  const fixed = (action: ActionName, family: ActionFamily): string => {
    return fillTags(`<${action}>`, tagsOf(family), family ? `family=${family}` : undefined)
  }
  return {
    families: conditional ? ['inet4', 'inet6'] : [''],
    onDemand: onDemand === undefined ? conditional : isTrue(onDemand),
    timeout: seconds(properties.get('timeout') ?? ''),
    timed: /<(bantime|time)>/.test(fixed('actionban', 'inet4')),
    command(action, family, dynamic = new Map()) {
      const values = new Map([['family', family as string], ...dynamic])
      return fillDynamicTags(fixed(action, family), values)
    },
  }
}

/** What the server is told about the action, as by `fail2ban-client -d`. */
export function propertiesOf(
  { file, sections }: ActionFile,
  params: Readonly<Record<string, string>>,
): Map<string, string> {
  const init = new Map([...Object.entries({ name: 'default', actname: file, ...params })])
  const vars = new Map(init)
  const own = new Map<string, string>()
  for (const option of OPTIONS) {
    if (vars.has(option)) continue
    const value = readOption(sections, 'Definition', option, vars)
    if (value !== undefined) own.set(option, value)
  }
  const known = new Map<string, string>()
  for (const option of sections.get('Init')?.keys() ?? []) {
    const value = readOption(sections, 'Init', option) ?? ''
    known.set(`known/${option}`, value)
    if (!init.has(option)) init.set(option, value)
  }
  const all = new Map([...own, ...known, ...init])
  const varied = [...all.keys()].flatMap((name) => /^(\w+)\?/.exec(name)?.[1] ?? [])
  const more = (tag: string): string | undefined => lookUp(sections, tag, vars)
  const resolved = resolveTags(all, { ignore: [...varied, ...UNFIXED], more })
  const properties = new Map(OPTIONS.filter(isCommand).map((name) => [name, '']))
  for (const [option, value] of init) {
    if (!option.startsWith('_') && option !== 'bantime') properties.set(option, value)
  }
  for (const option of OPTIONS) {
    const value = resolved.get(option)
    if (value !== undefined) properties.set(option, value)
  }
  return properties
}

/** An option of `[Definition]` that is no action of its own, or `section/option`. */
function lookUp(sections: Sections, tag: string, vars: Tags): string | undefined {
  const [, section = '', option = ''] = /^([\w-]+)\/([^\s>]+)$/.exec(tag) ?? []
  const places = {
    known: ['KNOWN/Definition', 'Definition'],
    default: ['DEFAULT'],
  }[section.toLowerCase()] ?? [section]
  for (const place of section ? places : []) {
    const value = readOption(sections, place, option)
    if (value !== undefined) return value
  }
  return readOption(sections, 'Definition', tag, vars)
}

function isCommand(option: string): boolean {
  return !['actionstart_on_demand', 'actionrepair_on_unban', 'norestored'].includes(option)
}

function isTrue(text: string): boolean {
  return ['1', 'on', 'true', 'yes'].includes(text.trim().toLowerCase())
}

/** Fail2Ban's `90`, `90s`, `2m`, `1h 30m`. */
function seconds(text: string): number {
  const units = { s: 1, m: 60, h: 3600, d: 86_400 }
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([a-z]*)/gi)]
  const sum = parts.reduce((total, [, count, unit = '']) => {
    const letter = unit[0]?.toLowerCase() as keyof typeof units | undefined
    return total + Number(count) * (letter === undefined ? 1 : (units[letter] ?? Number.NaN))
  }, 0)
  return sum > 0 && sum <= 3600 ? sum : TIMEOUT
}
