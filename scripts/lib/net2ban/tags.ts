import { hostname } from 'node:os'

// Fail2Ban's `<tags>`, filled in as its helpers.py and action.py do (1.0.2, and the same in 1.1).

const TAG = /<([^ <>]+)>/

/** So often may one tag be filled in within another, before it counts as a circle. */
const MOST = 25

/** What holds text that others chose, and is never filled in here. */
const FOREIGN: ReadonlySet<string> = new Set(['matches', 'ipmatches', 'ipjailmatches'])

export type Tags = ReadonlyMap<string, string>

export interface ResolveOptions {
  /** Such as `family=inet6`: `tag?family=inet6` then goes before `tag`. */
  condition?: string | undefined
  ignore?: Iterable<string>
  /** Asked for a tag that is not among the others. */
  more?: (tag: string) => string | undefined
}

/**
 * Fills the tags into each other.
 *
 * @throws Error if they refer to each other in a circle
 */
export function resolveTags(tags: Tags, options: ResolveOptions = {}): Map<string, string> {
  const ignore = new Set([...FOREIGN, ...(options.ignore ?? [])])
  const resolved = new Map(tags)
  const counts = new Map<string, Map<string, number>>()
  for (let again = true; again; ) {
    again = false
    for (const [tag, before] of resolved) {
      if (ignore.has(tag) || !before.includes('<')) continue
      const count = counts.get(tag) ?? new Map<string, number>()
      counts.set(tag, count)
      const value = resolveOne(tag, before, { tags: resolved, ignore, count, options })
      if (value === before) continue
      resolved.set(tag, value)
      if (TAG.test(value)) again = true
    }
  }
  return resolved
}

interface Resolving {
  tags: Tags
  ignore: ReadonlySet<string>
  /** How often each tag has been filled in here. */
  count: Map<string, number>
  options: ResolveOptions
}

function resolveOne(tag: string, text: string, { tags, ignore, count, options }: Resolving) {
  let value = text
  for (let from = 0; ; ) {
    const match = TAG.exec(value.slice(from))
    if (!match) return value
    const [whole, inner = ''] = match
    const at = from + match.index
    if (ignore.has(inner)) {
      from = at + whole.length
      continue
    }
    if (inner === tag || (count.get(inner) ?? 1) > MOST) {
      throw new Error(`tag "${tag}" refers to itself`)
    }
    const known = tagValue(tags, inner, options.condition) ?? options.more?.(inner)
    if (known === undefined) {
      from = at + whole.length
      continue
    }
    value = value.replaceAll(whole, () => known)
    count.set(inner, (count.get(inner) ?? 0) + 1)
    from = at
  }
}

/**
 * Fills resolved tags into a command. What nobody knows stays as it is: it may be dynamic, or the
 * shell's own `<`.
 */
export function fillTags(command: string, tags: Tags, condition?: string): string {
  let text = command
  for (let round = 0; round <= MOST; round++) {
    const next = text.replace(new RegExp(TAG, 'g'), (whole, tag: string) => {
      return tagValue(tags, tag, condition) ?? fixedTag(tag) ?? whole
    })
    if (next === text || !next.includes('<')) return next
    text = next
  }
  throw new Error('tags refer to each other in a circle')
}

/** Fills in what belongs to one ban: once, so that no value can name another tag. */
export function fillDynamicTags(command: string, values: Tags): string {
  const text = command.replace(new RegExp(TAG, 'g'), (whole, tag: string) => {
    return values.get(tag) ?? fixedTag(tag) ?? whole
  })
  return text.replace(/<F-[A-Z0-9_-]+>/g, '') // What a filter captured: there is no filter here.
}

function tagValue(tags: Tags, tag: string, condition?: string): string | undefined {
  return (condition ? tags.get(`${tag}?${condition}`) : undefined) ?? tags.get(tag)
}

function fixedTag(tag: string): string | undefined {
  if (tag === 'br') return '\n'
  if (tag === 'sp') return ' '
  if (tag === 'fq-hostname') return hostname()
  return tag === 'sh-hostname' ? hostname().split('.')[0] : undefined
}
