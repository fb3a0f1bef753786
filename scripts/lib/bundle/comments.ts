// What the comments of config.yaml and firewall.yaml say about each key: for the schemas and for man.

/** As much of a JSON schema as is needed here. */
export interface Schema {
  type?: string
  description?: string
  default?: unknown
  enum?: string[]
  minimum?: number
  maximum?: number
  properties?: Record<string, Schema>
  additionalProperties?: Schema | boolean
  items?: Schema
  anyOf?: Schema[]
}

/** The keys of a map, of each map in a list, or of each map in a map. */
export function keysOf(schema: Schema): Record<string, Schema> {
  const { properties, items, additionalProperties, anyOf } = schema
  if (properties) return properties
  if (items) return keysOf(items)
  if (typeof additionalProperties === 'object') return keysOf(additionalProperties)
  return anyOf?.map(keysOf).find((keys) => Object.keys(keys).length > 0) ?? {}
}

/** A key, in use or as a comment, with what stands behind it. */
const KEY = /^([ #]*)(?:- )?([A-Za-z][\w-]*):(?: +(.*))?$/

/**
 * Writes into each key of the schema what the comment above it and the one behind it say.
 *
 * @returns what the file says of itself at its head
 */
export function describe(text: string, schema: Schema): string {
  const lines = text.replace(/^# yaml-language-server:.*\n#\n/, '').split('\n')
  const open: { depth: number; keys: Record<string, Schema> }[] = [
    { depth: -1, keys: keysOf(schema) },
  ]
  let above: string[] = []
  let head = ''
  for (const line of lines) {
    const [, before = '', name = '', value = ''] = KEY.exec(line) ?? []
    const depth = before.replace(/# ?/g, '').length + (line.includes(`- ${name}:`) ? 2 : 0)
    const known = open.filter((one) => one.depth < depth)
    const keys = known.at(-1)?.keys ?? {}
    // "# net2ban: what it is" is a sentence.
    const named = name === '' ? undefined : keys[name]
    const found = named && before.includes('#') && value && isMap(named) ? undefined : named
    if (found) {
      const behind = /(?:^|\s)# ?(.*)$/.exec(value)?.[1] ?? ''
      const said = [...above, behind].join('\n').trim()
      if (said) found.description ??= said
      open.splice(known.length, open.length, { depth, keys: keysOf(found) })
      // The client of an example stands for all clients.
    } else if (name !== '' && Object.keys(keys).length > 0 && known.length > 1 && value === '') {
      open.splice(known.length, open.length, { depth, keys })
    }
    const isComment = line.trim().startsWith('#') && !found
    if (line.trim() === '' && head === '') head = above.join('\n')
    above = isComment ? [...above, line.trim().replace(/^# ?/, '')] : []
  }
  likeFirst(schema)
  for (const section of Object.values(keysOf(schema))) ofSection(section)
  return head
}

/**
 * What need not be said twice: a secret and the file with it explain each other, and a party's own
 * `rounds` is what those of all are.
 */
function ofSection(section: Schema): void {
  const said = new Map<string, string>()
  const maps = [section, ...Object.values(keysOf(section)).filter(isMap)].flatMap((map) => [
    keysOf(map),
    ...(map.anyOf ?? []).map(keysOf),
  ])
  for (const keys of maps) {
    for (const [name, key] of Object.entries(keys)) {
      const secret = name.replace(/_file$/, '')
      if (`${name}_file` in keys) key.description ??= `the value itself, instead of ${name}_file`
      else if (secret in keys && secret !== name)
        key.description ??= `a file with ${secret}, instead of it`
      key.description ??= said.get(name) ?? ''
      said.set(name, key.description)
    }
  }
}

function isMap(schema: Schema): boolean {
  return Object.keys(keysOf(schema)).length > 0
}

/** One map, or a list of such maps: what is said of the one holds for the other. */
function likeFirst(schema: Schema): void {
  const first = keysOf(schema)
  for (const other of schema.anyOf?.map(keysOf) ?? []) {
    for (const [name, key] of Object.entries(other)) {
      const said = first[name]?.description
      if (said) key.description ??= said
    }
  }
  for (const key of Object.values(first)) likeFirst(key)
}
